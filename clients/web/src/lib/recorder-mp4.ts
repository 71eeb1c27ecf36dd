/** An MP4 from the frames themselves: H.264 copied, JPEG encoded, sound as AAC or Opus. */
import {
  AudioSample,
  AudioSampleSource,
  BufferTarget,
  CanvasSource,
  canEncodeVideo,
  EncodedPacket,
  EncodedVideoPacketSource,
  getFirstEncodableAudioCodec,
  Mp4OutputFormat,
  Output,
  Quality,
} from "mediabunny";
import type { PassedFrame, Player } from "./player";
import { Flag } from "./protocol";
import type { RecordingWriter } from "./recorder";
import { ContinuousSound, FrameTimes } from "./recorder-timeline";
import { pcmToFloat } from "./wire";

const SOUND_QUALITY = new Quality("high");

/** Null when this browser cannot encode what the file needs. */
export async function openMp4Writer(
  player: Player,
  sampleRate: number,
): Promise<RecordingWriter | null> {
  const audioCodec = await getFirstEncodableAudioCodec(["aac", "opus"], {
    numberOfChannels: 1,
    sampleRate,
    quality: SOUND_QUALITY,
  });
  if (!audioCodec) return null;
  const { picture } = player.format;
  const { width, height } = player.canvas;
  if (picture === "jpeg" && !(await canEncodeVideo("avc", { width, height }))) return null;
  const sound = new AudioSampleSource({ codec: audioCodec, quality: SOUND_QUALITY });
  const video = picture === "h264" ? new CopiedVideo(player) : new EncodedVideo(player);
  const target = new BufferTarget();
  const output = new Output({ format: new Mp4OutputFormat({ fastStart: "in-memory" }), target });
  output.addVideoTrack(video.source);
  output.addAudioTrack(sound);
  output.setMetadataTags({
    title: "visavis recording",
    description: "Synthetic video: an AI-generated talking portrait.",
    date: new Date(),
  });
  await output.start();
  return new Mp4Writer(output, target, video, sound, sampleRate);
}

interface VideoWriter {
  readonly source: EncodedVideoPacketSource | CanvasSource;
  /** Whether a file can begin with this frame. */
  canBegin(frame: PassedFrame): boolean;
  add(frame: PassedFrame, atS: number, durationS: number): Promise<void>;
}

/** The received pictures, as they came. */
class CopiedVideo implements VideoWriter {
  readonly source = new EncodedVideoPacketSource("avc");

  constructor(readonly player: Player) {}

  canBegin(frame: PassedFrame): boolean {
    return (frame.wire.flags & Flag.Keyframe) !== 0;
  }

  add({ wire }: PassedFrame, atS: number, durationS: number): Promise<void> {
    const type = (wire.flags & Flag.Keyframe) !== 0 ? "key" : "delta";
    const { width, height } = this.player.canvas;
    return this.source.add(new EncodedPacket(wire.video, type, atS, durationS), {
      decoderConfig: {
        codec: this.player.format.codec,
        codedWidth: width,
        codedHeight: height,
      },
    });
  }
}

/** What the canvas shows. */
class EncodedVideo implements VideoWriter {
  readonly source: CanvasSource;

  constructor(player: Player) {
    this.source = new CanvasSource(player.canvas, { codec: "avc", quality: SOUND_QUALITY });
  }

  canBegin(): boolean {
    return true;
  }

  add(_: PassedFrame, atS: number, durationS: number): Promise<void> {
    return this.source.add(atS, durationS);
  }
}

class Mp4Writer implements RecordingWriter {
  readonly extension = "mp4";
  readonly #times = new FrameTimes();
  readonly #track: ContinuousSound;
  #begun = false;
  #pending: Promise<void> = Promise.resolve();
  #failure: unknown = null;

  constructor(
    readonly output: Output,
    readonly target: BufferTarget,
    readonly video: VideoWriter,
    readonly sound: AudioSampleSource,
    readonly sampleRate: number,
  ) {
    this.#track = new ContinuousSound(sampleRate);
  }

  get seconds(): number {
    return this.#track.endS;
  }

  add(frame: PassedFrame): void {
    const hasPicture = frame.wire.video.length > 0;
    if (!this.#begun && !(hasPicture && this.video.canBegin(frame))) return;
    this.#begun = true;
    const atS = this.#times.place(frame.dueS);
    const pcm = pcmToFloat(frame.wire.audio);
    const durationS = pcm.length > 0 ? pcm.length / this.sampleRate : 0.04;
    const heard = frame.audible ? pcm : new Float32Array(pcm.length);
    const sound = this.#track.append(atS, heard);
    const soundAtS = this.#track.endS - sound.length / this.sampleRate;
    this.#enqueue(async () => {
      if (hasPicture) await this.video.add(frame, atS, durationS);
      await this.#addSound(sound, soundAtS);
    });
  }

  async finish(): Promise<Blob> {
    await this.#pending;
    if (this.#failure !== null) throw this.#failure;
    if (!this.#begun) throw new Error("no picture came that a recording could begin with");
    await this.output.finalize();
    if (!this.target.buffer) throw new Error("the file is empty");
    return new Blob([this.target.buffer], { type: "video/mp4" });
  }

  abort(): void {
    void this.output.cancel();
  }

  async #addSound(data: Float32Array<ArrayBuffer>, timestamp: number): Promise<void> {
    if (data.length === 0) return;
    const sample = new AudioSample({
      data,
      format: "f32-planar",
      numberOfChannels: 1,
      sampleRate: this.sampleRate,
      timestamp,
    });
    await this.sound.add(sample);
    sample.close();
  }

  #enqueue(work: () => Promise<void>): void {
    this.#pending = this.#pending.then(async () => {
      if (this.#failure !== null) return;
      try {
        await work();
      } catch (error) {
        this.#failure = error;
      }
    });
  }
}
