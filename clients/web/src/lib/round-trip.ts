/** Round-trip time from `session.ping` and `session.pong`. */

export class RoundTrip {
  #lastMs: number | null = null;
  #sentAtMs: number | null = null;

  /** The last trip in milliseconds; null before the first. */
  get lastMs(): number | null {
    return this.#lastMs;
  }

  /** Returns the `t` to send. */
  ping(nowMs: number): number {
    this.#sentAtMs = nowMs;
    return nowMs;
  }

  /** A pong that answers an older ping, or none, is ignored. */
  pong(t: number | string | null, nowMs: number): void {
    if (this.#sentAtMs === null || t !== this.#sentAtMs) return;
    this.#lastMs = nowMs - this.#sentAtMs;
    this.#sentAtMs = null;
  }
}
