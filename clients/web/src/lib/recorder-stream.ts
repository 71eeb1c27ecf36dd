/** The browser's own recorder, for browsers without WebCodecs: it films the canvas. */
import type { Player } from "./player";
import type { RecordingWriter } from "./recorder";
import type { WatermarkedCanvas } from "./watermark";

const TYPES = [
  { mimeType: "video/mp4;codecs=avc1.42E01F,mp4a.40.2", extension: "mp4" },
  { mimeType: "video/mp4", extension: "mp4" },
  { mimeType: "video/webm;codecs=vp9,opus", extension: "webm" },
  { mimeType: "video/webm", extension: "webm" },
] as const;

/** Null when this browser has no MediaRecorder. */
export function openStreamWriter(
  player: Player,
  marked: WatermarkedCanvas | null,
): RecordingWriter | null {
  if (typeof MediaRecorder === "undefined" || !("captureStream" in player.canvas)) return null;
  const type = TYPES.find(({ mimeType }) => MediaRecorder.isTypeSupported(mimeType));
  if (!type) return null;
  const stream = (marked?.canvas ?? player.canvas).captureStream();
  for (const track of player.audio.stream()?.getAudioTracks() ?? []) {
    stream.addTrack(track.clone());
  }
  const recorder = new MediaRecorder(stream, { mimeType: type.mimeType });
  return new StreamWriter(recorder, type.extension, marked);
}

class StreamWriter implements RecordingWriter {
  readonly #pieces: Blob[] = [];
  readonly #startedAtMs = performance.now();
  #stoppedAtMs: number | null = null;

  constructor(
    readonly recorder: MediaRecorder,
    readonly extension: string,
    readonly marked: WatermarkedCanvas | null,
  ) {
    recorder.ondataavailable = ({ data }) => this.#pieces.push(data);
    recorder.start(1000);
  }

  get seconds(): number {
    return ((this.#stoppedAtMs ?? performance.now()) - this.#startedAtMs) / 1000;
  }

  /** The canvas is filmed as it is; the frames themselves are not needed. */
  add(): void {
    this.marked?.draw();
  }

  async finish(): Promise<Blob> {
    if (this.recorder.state !== "inactive") {
      await new Promise<void>((resolve) => {
        this.recorder.onstop = () => resolve();
        this.recorder.stop();
      });
    }
    this.#stoppedAtMs = performance.now();
    this.#release();
    return new Blob(this.#pieces, { type: this.recorder.mimeType });
  }

  abort(): void {
    if (this.recorder.state !== "inactive") this.recorder.stop();
    this.#release();
  }

  #release(): void {
    for (const track of this.recorder.stream.getTracks()) track.stop();
  }
}
