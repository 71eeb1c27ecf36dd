/** How fast audio may go to the server. The clock is the caller's. */

/** The server counts a message for no less than this. */
const SMALLEST_S = 0.0025;
/** Clocks differ, and the network bunches messages: this much of what is allowed is used. */
const MARGIN = 0.9;

/** A bucket that leaks at `rate` seconds of audio a second and holds `burstS`. */
export class InputRate {
  #levelS = 0;
  #thenMs = 0;

  constructor(
    readonly rate: number,
    readonly burstS: number,
  ) {}

  /** Counts a message of `audioS` seconds and returns 0, or the milliseconds to wait before it. */
  take(audioS: number, nowMs: number): number {
    const costS = Math.max(audioS, SMALLEST_S);
    const rate = MARGIN * this.rate;
    const passedS = Math.max(0, nowMs - this.#thenMs) / 1000;
    this.#levelS = Math.max(0, this.#levelS - passedS * rate);
    this.#thenMs = nowMs;
    // What is larger than the whole bucket waits until that is empty.
    const overS = this.#levelS - Math.max(0, MARGIN * this.burstS - costS);
    if (this.#levelS > 0 && overS > 0) return Math.ceil((overS / rate) * 1000);
    this.#levelS += costS;
    return 0;
  }
}
