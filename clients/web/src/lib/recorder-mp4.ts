/** An MP4 from the frames themselves: H.264 copied, JPEG encoded, sound as AAC or Opus. */
import {
  AudioSample,
  AudioSampleSource,
  BufferTarget,
  canEncodeVideo,
  EncodedPacket,
  EncodedVideoPacketSource,
  getFirstEncodableAudioCodec,
  Mp4OutputFormat,
  Output,
  Quality,
  VideoSample,
  VideoSampleSource,
} from "mediabunny";
import { AvatarError } from "./errors";
import type { Film } from "./film";
import type { PassedFrame, Player } from "./player";
import { Flag } from "./protocol";
import { provenanceTags } from "./provenance";
import type { RecordingPlan, RecordingWriter } from "./recorder";
import { ContinuousSound, FrameTimes } from "./recorder-timeline";
import { pcmToFloat } from "./wire";
import { WriteQueue } from "./write-queue";

const NOTHING_YET = "no picture came yet that a recording begins with";
const SOUND_QUALITY = new Quality("high");
const PICTURE_QUALITY = new Quality("high");

/** Null when this browser cannot encode what the file needs. */
export async function openMp4Writer({
  player,
  film,
  sampleRate,
  provenance,
  failed,
}: RecordingPlan): Promise<RecordingWriter | null> {
  const audioCodec = await getFirstEncodableAudioCodec(["aac", "opus"], {
    numberOfChannels: 1,
    sampleRate,
    quality: SOUND_QUALITY,
  });
  if (!audioCodec) return null;
  const copied = player.format.picture === "h264" && film.words === "";
  const { width, height } = film.canvas;
  if (!copied && !(await canEncodeVideo("avc", { width, height }))) return null;
  const sound = new AudioSampleSource({ codec: audioCodec, quality: SOUND_QUALITY });
  const video = copied ? new CopiedVideo(player) : new EncodedVideo(film);
  const target = new BufferTarget();
  const output = new Output({ format: new Mp4OutputFormat({ fastStart: "in-memory" }), target });
  output.addVideoTrack(video.source);
  output.addAudioTrack(sound);
  output.setMetadataTags(provenanceTags(provenance));
  await output.start();
  return new Mp4Writer(output, target, video, sound, sampleRate, new WriteQueue(failed));
}

interface VideoWriter {
  readonly source: EncodedVideoPacketSource | VideoSampleSource;
  /** Pictures are encoded, which takes time; each stands alone, so that some may be left out. */
  readonly encodes: boolean;
  /** Whether a file can begin with this frame. */
  canBegin(frame: PassedFrame): boolean;
  /** Takes the picture at once; what it returns writes it. */
  take(frame: PassedFrame, atS: number, durationS: number): () => Promise<void>;
}

/** The received pictures, as they came. */
class CopiedVideo implements VideoWriter {
  readonly source = new EncodedVideoPacketSource("avc");
  readonly encodes = false;

  constructor(readonly player: Player) {}

  canBegin(frame: PassedFrame): boolean {
    return (frame.wire.flags & Flag.Keyframe) !== 0;
  }

  take({ wire }: PassedFrame, atS: number, durationS: number): () => Promise<void> {
    const type = (wire.flags & Flag.Keyframe) !== 0 ? "key" : "delta";
    const { width: codedWidth, height: codedHeight } = this.player.canvas;
    const { codec } = this.player.format;
    const packet = new EncodedPacket(wire.video, type, atS, durationS);
    return () => this.source.add(packet, { decoderConfig: { codec, codedWidth, codedHeight } });
  }
}

/** What the canvas shows. */
class EncodedVideo implements VideoWriter {
  readonly source = new VideoSampleSource({ codec: "avc", quality: PICTURE_QUALITY });
  readonly encodes = true;

  constructor(readonly film: Film) {}

  canBegin(): boolean {
    return true;
  }

  take(_: PassedFrame, atS: number, durationS: number): () => Promise<void> {
    this.film.draw();
    const sample = new VideoSample(this.film.canvas, { timestamp: atS, duration: durationS });
    return async () => {
      try {
        await this.source.add(sample);
      } finally {
        sample.close();
      }
    };
  }
}

class Mp4Writer implements RecordingWriter {
  readonly extension = "mp4";
  readonly #times = new FrameTimes();
  readonly #track: ContinuousSound;
  #begun = false;
  #leftOut = 0;

  constructor(
    readonly output: Output,
    readonly target: BufferTarget,
    readonly video: VideoWriter,
    readonly sound: AudioSampleSource,
    readonly sampleRate: number,
    readonly queue: WriteQueue,
  ) {
    this.#track = new ContinuousSound(sampleRate);
  }

  get seconds(): number {
    return this.#track.endS;
  }

  get leftOut(): number {
    return this.#leftOut;
  }

  add(frame: PassedFrame): void {
    const hasPicture = frame.wire.video.length > 0;
    if (this.queue.broken) return;
    if (!this.#begun && !(hasPicture && this.video.canBegin(frame))) return;
    this.#begun = true;
    const atS = this.#times.place(frame.dueS);
    const pcm = pcmToFloat(frame.wire.audio);
    const durationS = pcm.length > 0 ? pcm.length / this.sampleRate : 0.04;
    const heard = frame.audible ? pcm : new Float32Array(pcm.length);
    const sound = this.#track.append(atS, heard);
    const soundAtS = this.#track.endS - sound.length / this.sampleRate;
    const { encodes } = this.video;
    const taken = hasPicture && (!encodes || this.queue.keepsUp);
    if (hasPicture && !taken) this.#leftOut += 1;
    const write = taken ? this.video.take(frame, atS, durationS) : null;
    this.queue.add(async () => {
      await write?.();
      await this.#addSound(sound, soundAtS);
    }, taken && encodes);
  }

  async finish(): Promise<Blob> {
    if (!this.#begun) throw new AvatarError({ code: "recorder_empty", message: NOTHING_YET });
    await this.queue.finish(() => this.output.finalize());
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
    try {
      await this.sound.add(sample);
    } finally {
      sample.close();
    }
  }
}
