/** The browser's own recorder, for browsers without WebCodecs: it films the canvas. */
import type { Film } from "./film";
import type { RecordingPlan, RecordingWriter } from "./recorder";

const TYPES = [
  { mimeType: "video/mp4;codecs=avc1.42E01F,mp4a.40.2", extension: "mp4" },
  { mimeType: "video/mp4", extension: "mp4" },
  { mimeType: "video/webm;codecs=vp9,opus", extension: "webm" },
  { mimeType: "video/webm", extension: "webm" },
] as const;

/** Null when this browser has no MediaRecorder. */
export function openStreamWriter({ player, film, failed }: RecordingPlan): RecordingWriter | null {
  if (typeof MediaRecorder === "undefined" || !("captureStream" in film.canvas)) return null;
  const type = TYPES.find(({ mimeType }) => MediaRecorder.isTypeSupported(mimeType));
  if (!type) return null;
  const stream = film.canvas.captureStream();
  for (const track of player.audio.stream()?.getAudioTracks() ?? []) {
    stream.addTrack(track.clone());
  }
  const recorder = new MediaRecorder(stream, { mimeType: type.mimeType });
  recorder.onerror = () => failed(new Error("the browser's recorder stopped"));
  return new StreamWriter(recorder, type.extension, film);
}

class StreamWriter implements RecordingWriter {
  readonly #pieces: Blob[] = [];
  readonly #startedAtMs = performance.now();
  #stoppedAtMs: number | null = null;

  constructor(
    readonly recorder: MediaRecorder,
    readonly extension: string,
    readonly film: Film,
  ) {
    recorder.ondataavailable = ({ data }) => this.#pieces.push(data);
    recorder.start(1000);
  }

  get seconds(): number {
    return ((this.#stoppedAtMs ?? performance.now()) - this.#startedAtMs) / 1000;
  }

  /** The browser leaves out what it cannot encode, and does not say what. */
  readonly leftOut = 0;

  /** The canvas is filmed as it is; the frames themselves are not needed. */
  add(): void {
    this.film.draw();
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
