/** A connection can die without a word: a server that says nothing at all is gone. */

/** A server that is silent for so long is asked for a sign of life, and given up after the second. */
const ASK_AFTER_MS = 12_000;
const LOST_AFTER_MS = 18_000;
const LOOK_EVERY_MS = 2_000;

export interface WatchHandlers {
  ask(): void;
  lost(): void;
}

export class SilenceWatch {
  #timer: ReturnType<typeof setInterval> | undefined;
  #heardAtMs = 0;

  constructor(readonly handlers: WatchHandlers) {}

  /** A connection begins; the silence of the one before counts for nothing. */
  start(): void {
    this.heard();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** Anything at all came. */
  heard(): void {
    this.#heardAtMs = performance.now();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs > LOST_AFTER_MS) this.handlers.lost();
    else if (silentMs > ASK_AFTER_MS) this.handlers.ask();
  }
}
