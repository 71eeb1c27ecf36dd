/** Round-trip time from `session.ping` and `session.pong`. */
import { Window } from "./metrics";

export class RoundTrip {
  readonly #tripsMs = new Window(8);
  #sentAtMs: number | null = null;

  /** The last trip in milliseconds; null before the first. */
  get lastMs(): number | null {
    return this.#tripsMs.values.at(-1) ?? null;
  }

  /** Returns the `t` to send. */
  ping(nowMs: number): number {
    this.#sentAtMs = nowMs;
    return nowMs;
  }

  /** A pong that answers an older ping, or none, is ignored. */
  pong(t: number | string | null, nowMs: number): void {
    if (this.#sentAtMs === null || t !== this.#sentAtMs) return;
    this.#tripsMs.push(nowMs - this.#sentAtMs);
    this.#sentAtMs = null;
  }
}
