/**
 * The microphone of a session: opened by a gesture, then push-to-talk (`press`, `release`) or an
 * open microphone that hears by itself when somebody speaks.
 */
import { Emitter } from "./emitter";
import { Microphone } from "./microphone";
import { type MicrophoneMode, UtteranceDetector, type UtteranceHandlers } from "./utterance";

export interface VoiceHandlers extends UtteranceHandlers {
  /** An open microphone was opened or closed. */
  opened(open: boolean): void;
}

export interface VoiceEvents {
  /** Level in dBFS of the last 20 ms. */
  level: number;
  /** `active`: the microphone records. `talking`: what it hears is being sent. */
  change: { active: boolean; talking: boolean };
}

export class VoiceInput extends Emitter<VoiceEvents> {
  readonly #microphone: Microphone;
  readonly #detector: UtteranceDetector;
  #starting: Promise<void> | null = null;
  #pressed = false;

  constructor(
    sampleRate: number,
    readonly handlers: VoiceHandlers,
  ) {
    super();
    this.#detector = new UtteranceDetector(
      sampleRate,
      {
        begin: () => {
          handlers.begin();
          this.#changed();
        },
        audio: (pcm) => handlers.audio(pcm),
        end: () => {
          handlers.end();
          this.#changed();
        },
      },
      "push",
    );
    this.#microphone = new Microphone(sampleRate, (pcm) =>
      this.emit("level", this.#detector.push(pcm)),
    );
  }

  get mode(): MicrophoneMode {
    return this.#detector.mode;
  }

  get active(): boolean {
    return this.#microphone.active;
  }

  get talking(): boolean {
    return this.#detector.talking;
  }

  /** While the loudspeakers play, an open microphone demands louder speech. The session sets it. */
  get loudspeaking(): boolean {
    return this.#detector.loudspeaking;
  }

  set loudspeaking(playing: boolean) {
    this.#detector.loudspeaking = playing;
  }

  /** Closes the microphone when the mode changes. */
  async setMode(mode: MicrophoneMode): Promise<void> {
    if (mode === this.mode) return;
    await this.close();
    this.#detector.mode = mode;
  }

  /** Call from a gesture. Throws MicrophoneError. */
  async open(): Promise<void> {
    if (this.active) return;
    this.#starting ??= this.#microphone.start().finally(() => {
      this.#starting = null;
    });
    await this.#starting;
    if (this.mode === "open") this.handlers.opened(true);
    this.#changed();
  }

  /** Push-to-talk: from here on it is sent. Opens the microphone if need be. */
  async press(): Promise<void> {
    this.#pressed = true;
    await this.open();
    // The first press may have to wait for the permission prompt; by then the finger is gone.
    if (this.#pressed) this.#detector.begin();
  }

  /** Push-to-talk: end of the utterance. The microphone stays open, unheard, until `close`. */
  release(): void {
    this.#pressed = false;
    this.endTurn();
  }

  /** Ends what is being said; an open microphone goes on listening. */
  endTurn(): void {
    this.#detector.end();
  }

  async close(): Promise<void> {
    this.#pressed = false;
    this.#detector.end();
    if (!this.active) return;
    await this.#microphone.stop();
    if (this.mode === "open") this.handlers.opened(false);
    this.#changed();
  }

  #changed(): void {
    this.emit("change", { active: this.active, talking: this.talking });
  }
}
