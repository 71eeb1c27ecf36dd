/** Recordings as a source: decode any audio file, send it a little ahead of what comes back. */
import type { Connection } from "./connection";
import { AvatarError } from "./errors";
import { floatToPcm } from "./pcm";

export class RecordingError extends AvatarError {
  override name = "RecordingError";
}

const MAX_SECONDS = 1800;
const PIECE_S = 0.2;
const TICK_MS = 40;
/** Audio kept in flight: enough for the longest chunk, small beside any server's limit. */
const MAX_BACKLOG_MS = 4_000;
const MAX_UNSENT_BYTES = 256 * 1024;

/** Mono PCM16 at `sampleRate` from the bytes of any audio file that the browser can decode. */
export async function decodeRecording(bytes: ArrayBuffer, sampleRate: number): Promise<Int16Array> {
  const decoder = new OfflineAudioContext(1, 1, sampleRate);
  let buffer: AudioBuffer;
  try {
    buffer = await decoder.decodeAudioData(bytes);
  } catch {
    throw new RecordingError({
      code: "recording_unreadable",
      message: "this browser cannot read that file as audio",
    });
  }
  if (buffer.duration > MAX_SECONDS) {
    throw new RecordingError({
      code: "recording_too_long",
      message:
        `the recording lasts ${Math.round(buffer.duration / 60)} minutes; ` +
        `the limit is ${MAX_SECONDS / 60}`,
    });
  }
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) {
      mono[i] = (mono[i] ?? 0) + (samples[i] ?? 0) / buffer.numberOfChannels;
    }
  }
  return floatToPcm(mono);
}

/** Sends one recording as fast as it is shown; after a loss that is resumed it goes on. */
export class RecordingFeeder {
  #timer: ReturnType<typeof setInterval> | undefined;
  #at = 0;

  constructor(
    readonly connection: Connection,
    readonly pcm: Int16Array,
    readonly onSent: () => void = () => {},
  ) {}

  start(): void {
    this.#timer = setInterval(() => this.#pump(), TICK_MS);
    this.#pump();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #pump(): void {
    const piece = Math.round(PIECE_S * this.connection.sampleRate);
    const limitMs = Math.min(
      MAX_BACKLOG_MS,
      0.6 * (this.connection.created?.limits?.max_buffered_input_ms ?? MAX_BACKLOG_MS),
    );
    while (this.#at < this.pcm.length) {
      if (this.connection.backlogMs > limitMs || this.connection.unsentBytes > MAX_UNSENT_BYTES)
        return;
      if (!this.connection.sendAudio(this.pcm.subarray(this.#at, this.#at + piece))) return;
      this.#at += piece;
    }
    this.stop();
    this.onSent();
  }
}
