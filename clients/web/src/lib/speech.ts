/**
 * What the caller says: the utterance that is open, the recording that is sent, and what follows from
 * them for the face. Knows nothing of pictures and sound.
 */
import type { Connection } from "./connection";
import { Emitter } from "./emitter";
import { RecordingFeeder } from "./recording";
import type { Activity } from "./status";
import { Turns } from "./turns";

export interface SpeechEvents {
  /** True while there is something that a cancel would stop. */
  busy: boolean;
  /** The loudspeakers play speech, or do no more. */
  speaking: boolean;
}

export class Speech extends Emitter<SpeechEvents> {
  readonly turns = new Turns();
  /** Somebody is listened to. */
  listening = false;
  #feeder: RecordingFeeder | null = null;
  #saying = false;
  #busy = false;
  #speaking = false;

  get busy(): boolean {
    return this.#busy;
  }

  /** A recording is being sent or shown. */
  get saying(): boolean {
    return this.#saying;
  }

  get activity(): Activity {
    if (this.turns.speaking) return "speaking";
    return this.turns.busy || this.listening ? "listening" : "idle";
  }

  /** Sends a recording as an utterance of its own; `onSent` when all of it is on its way. */
  say(connection: Connection, pcm: Int16Array, onSent: () => void): void {
    this.turns.begin(performance.now());
    this.#saying = true;
    this.#feeder = new RecordingFeeder(connection, pcm, () => {
      this.#feeder = null;
      onSent();
    });
    this.#feeder.start();
  }

  /** Nothing that was begun will be answered. */
  forget(): void {
    this.#feeder?.stop();
    this.#feeder = null;
    this.#saying = false;
    this.turns.forget();
  }

  /** Tells of changes of `busy` and `speaking`, if there are any. */
  update(): void {
    const { busy, speaking } = this.turns;
    if (speaking !== this.#speaking) {
      this.#speaking = speaking;
      this.emit("speaking", speaking);
    }
    if (busy === this.#busy) return;
    this.#busy = busy;
    if (!busy) this.#saying = false;
    this.emit("busy", busy);
  }
}
