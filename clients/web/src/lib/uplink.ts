/** The audio on its way to the server: cut into messages, numbered, and counted until it is back. */
import { Flag } from "./protocol";
import { encodeAudioIn, type WireFrame } from "./wire";

/** Samples of one AUDIO_IN message: well below any server's message limit. */
const MAX_MESSAGE_SAMPLES = 9_600;
/** A last slice is padded or cut to a whole frame: so much may be left over when it has come back. */
const SETTLED_MS = 60;

export class Uplink {
  #seq = 0;
  #sentSamples = 0;
  #backlogSamples = 0;

  /** `sampleRate` in Hz. */
  constructor(readonly sampleRate: number) {}

  /** Milliseconds of audio that were sent and have not come back with frames. */
  get backlogMs(): number {
    return (this.#backlogSamples * 1000) / this.sampleRate;
  }

  /** The messages that carry `pcm`, mono PCM16; they count as sent. */
  *messages(pcm: Int16Array): Generator<ArrayBuffer> {
    for (let at = 0; at < pcm.length; at += MAX_MESSAGE_SAMPLES) {
      const piece = pcm.subarray(at, at + MAX_MESSAGE_SAMPLES);
      const ptsUs = Math.round((this.#sentSamples * 1e6) / this.sampleRate);
      const message = encodeAudioIn(this.#seq, ptsUs, piece);
      this.#seq = (this.#seq + 1) >>> 0;
      this.#sentSamples += piece.length;
      this.#backlogSamples += piece.length;
      yield message;
    }
  }

  /** A frame came back with its sound. */
  returned(frame: WireFrame): void {
    if ((frame.flags & Flag.Idle) !== 0) return;
    this.#backlogSamples = Math.max(0, this.#backlogSamples - frame.audio.length / 2);
    const isLast = (frame.flags & Flag.Last) !== 0;
    if (isLast && this.backlogMs < SETTLED_MS) this.#backlogSamples = 0;
  }

  /** What was sent will not come back. */
  cancelled(): void {
    this.#backlogSamples = 0;
  }

  /** A new session counts anew. */
  restart(): void {
    this.#seq = 0;
    this.#sentSamples = 0;
    this.#backlogSamples = 0;
  }
}
