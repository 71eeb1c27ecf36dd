/**
 * Records what is seen and heard. Received H.264 goes into an MP4 as it came, without being encoded
 * again; JPEG pictures are encoded where WebCodecs can, else the browser's MediaRecorder films the
 * canvas. The MP4 writer is loaded with the first recording.
 */
import { Emitter } from "./emitter";
import { AvatarError } from "./errors";
import { Film } from "./film";
import type { PassedFrame, Player } from "./player";
import type { SessionCreated } from "./protocol";
import type { Provenance } from "./provenance";

export interface Recording {
  blob: Blob;
  /** `mp4`, or `webm` where the browser has nothing else. */
  extension: string;
  seconds: number;
  /** Pictures that are not in the file, for the browser's encoder was slower than real time. */
  leftOut: number;
}

export interface RecorderEvents {
  /** The running recording came to nothing; it is discarded. */
  failed: AvatarError;
}

/** What a recording is made from. */
export interface RecordingPlan {
  player: Player;
  film: Film;
  /** In Hz. */
  sampleRate: number;
  provenance: Provenance;
  /** To be called when nothing more can be written. */
  failed: (error: Error) => void;
}

/** One way to make a file. */
export interface RecordingWriter {
  readonly extension: string;
  /** Length of the file so far. */
  readonly seconds: number;
  /** Pictures that the encoder had no time for. */
  readonly leftOut: number;
  /** Takes a frame whose moment has passed; never throws. */
  add(frame: PassedFrame): void;
  finish(): Promise<Blob>;
  abort(): void;
}

/** Of one recording. */
export interface RecordingOptions {
  /**
   * Words to be seen in the lower right corner, such as “AI-generated”. The pictures are encoded
   * anew for it. Default: none.
   */
  watermark?: string;
  /** Whether the person shown has agreed, for the file's metadata; by default nothing is said. */
  consent?: boolean | null;
}

export interface RecorderOptions {
  sampleRate: number;
  /** Asks the server for a picture that can be decoded alone, to begin with. */
  keyframe: () => void;
  /** What the server said of itself. */
  created: () => SessionCreated | null;
}

const MAX_SECONDS = 3600;

export class Recorder extends Emitter<RecorderEvents> {
  #writer: RecordingWriter | null = null;
  #stopListening: () => void = () => {};
  #starting = false;

  constructor(
    readonly player: Player,
    readonly options: RecorderOptions,
  ) {
    super();
  }

  get active(): boolean {
    return this.#writer !== null;
  }

  /** Length of what is recorded; a recording begins with the next keyframe. */
  get seconds(): number {
    return this.#writer?.seconds ?? 0;
  }

  /** Throws AvatarError `recorder_unsupported` or `recorder_busy`. */
  async start({ watermark = "", consent = null }: RecordingOptions = {}): Promise<void> {
    if (this.#writer || this.#starting) {
      throw new AvatarError({ code: "recorder_busy", message: "a recording runs already" });
    }
    this.#starting = true;
    try {
      const writer = await this.#open(watermark.trim(), consent);
      this.#writer = writer;
      this.#stopListening = this.player.on("passed", (frame) => {
        if (this.seconds < MAX_SECONDS) writer.add(frame);
      });
      this.options.keyframe();
    } finally {
      this.#starting = false;
    }
  }

  /**
   * Throws AvatarError `recorder_idle`, `recorder_empty` before the first keyframe came, or
   * `recorder_failed` when nothing could be written.
   */
  async stop(): Promise<Recording> {
    const writer = this.#writer;
    if (!writer) {
      throw new AvatarError({ code: "recorder_idle", message: "no recording runs" });
    }
    this.#forget();
    try {
      const blob = await writer.finish();
      const { extension, seconds, leftOut } = writer;
      return { blob, extension, seconds, leftOut };
    } catch (error) {
      writer.abort();
      throw failure(error);
    }
  }

  /** Drops what was recorded. */
  discard(): void {
    const writer = this.#writer;
    this.#forget();
    writer?.abort();
  }

  #forget(): void {
    this.#stopListening();
    this.#stopListening = () => {};
    this.#writer = null;
  }

  /** While a file is finished, `stop` says what went wrong. */
  #fail(error: Error): void {
    if (!this.#writer) return;
    this.discard();
    this.emit("failed", failure(error));
  }

  async #open(watermark: string, consent: boolean | null): Promise<RecordingWriter> {
    const { server_version: version, model = null } = this.options.created() ?? {};
    const software = version === undefined ? "visavis" : `visavis ${version}`;
    const plan: RecordingPlan = {
      player: this.player,
      film: new Film(this.player.canvas, watermark),
      sampleRate: this.options.sampleRate,
      provenance: { software, model, created: new Date(), consent },
      failed: (error) => this.#fail(error),
    };
    if (typeof AudioEncoder !== "undefined" && typeof VideoEncoder !== "undefined") {
      const { openMp4Writer } = await import("./recorder-mp4");
      const writer = await openMp4Writer(plan);
      if (writer) return writer;
    }
    const { openStreamWriter } = await import("./recorder-stream");
    const writer = openStreamWriter(plan);
    if (writer) return writer;
    throw new AvatarError({
      code: "recorder_unsupported",
      message: "this browser has neither WebCodecs encoders nor MediaRecorder",
    });
  }
}

function failure(error: unknown): AvatarError {
  if (error instanceof AvatarError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new AvatarError({ code: "recorder_failed", message });
}
