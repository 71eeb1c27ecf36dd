/**
 * Turns microphone blocks into utterances: push-to-talk between two calls, or an open microphone
 * through the energy gate. It keeps a moment of sound from before the gate opened, so that no
 * first consonant is lost.
 */
import { EnergyGate } from "./gate";
import { levelDb } from "./pcm";

export type MicrophoneMode = "push" | "open";

export interface UtteranceHandlers {
  begin(): void;
  audio(pcm: Int16Array): void;
  end(): void;
}

const PRE_ROLL_MS = 240;
/** While the avatar talks, its own voice may reach the microphone: speech must be louder then. */
const ECHO_EXTRA_DB = 9;

export class UtteranceDetector {
  readonly #gate = new EnergyGate();
  #preRoll: Int16Array[] = [];
  #talking = false;
  /** True while the loudspeakers play. */
  loudspeaking = false;

  constructor(
    readonly sampleRate: number,
    readonly handlers: UtteranceHandlers,
    public mode: MicrophoneMode,
  ) {}

  get talking(): boolean {
    return this.#talking;
  }

  /** Returns the level of the block in dBFS, for a meter. */
  push(pcm: Int16Array): number {
    const level = levelDb(pcm);
    const blockMs = (pcm.length * 1000) / this.sampleRate;
    if (this.mode === "push") {
      if (this.#talking) this.handlers.audio(pcm);
      else this.#remember(pcm, blockMs);
      return level;
    }
    const decision = this.#gate.push(level, blockMs, this.loudspeaking ? ECHO_EXTRA_DB : 0);
    if (decision === "opened") this.begin();
    if (this.#talking) this.handlers.audio(pcm);
    else this.#remember(pcm, blockMs);
    if (decision === "ended") this.end();
    return level;
  }

  begin(): void {
    if (this.#talking) return;
    this.#talking = true;
    this.handlers.begin();
    // A pressed button is its own start; only the gate needs what came before it.
    if (this.mode === "open") for (const pcm of this.#preRoll) this.handlers.audio(pcm);
    this.#preRoll = [];
  }

  end(): void {
    if (!this.#talking) return;
    this.#talking = false;
    this.#gate.close();
    this.handlers.end();
  }

  #remember(pcm: Int16Array, blockMs: number): void {
    this.#preRoll.push(pcm);
    while (this.#preRoll.length * blockMs > PRE_ROLL_MS) this.#preRoll.shift();
  }
}
