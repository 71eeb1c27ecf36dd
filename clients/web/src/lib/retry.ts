/** When a socket closes: is it worth another try, and how soon. */

/**
 * `done`: left on purpose. `retry`: come back by itself. `expired`: a new session works, when a
 * person wants one. `fatal`: the same again cannot work.
 */
export type CloseVerdict = "done" | "retry" | "expired" | "fatal";

const VERDICTS: Readonly<Record<number, CloseVerdict>> = {
  1000: "done",
  1003: "fatal",
  1007: "fatal",
  1009: "fatal",
  4400: "fatal",
  4401: "fatal",
  4403: "fatal",
  4404: "fatal",
  4408: "expired",
  4409: "fatal",
  4410: "expired",
};

/** Close codes that the protocol leaves open (1001, 1005, 1006, 1011, 1012, 4429, 4503...) are retried. */
export function verdictOf(closeCode: number): CloseVerdict {
  return VERDICTS[closeCode] ?? "retry";
}

/** After these a server holds a session: gone away, broken off, closed without a code, restarting. */
const HELD_AFTER: ReadonlySet<number> = new Set([1001, 1005, 1006, 1012]);

/** Whether a held session may be waiting on the other side. */
export function mayResumeAfter(closeCode: number): boolean {
  return HELD_AFTER.has(closeCode);
}

export interface BackoffOptions {
  /** The first step. */
  baseMs?: number;
  /** No step is longer, unless the server asks for it. */
  maxMs?: number;
  /** Uniform in [0, 1). */
  random?: () => number;
}

/** Exponential backoff with full jitter above half the step, so that clients do not march in step. */
export class Backoff {
  readonly baseMs: number;
  readonly maxMs: number;
  readonly #random: () => number;
  #attempt = 0;

  constructor({ baseMs = 500, maxMs = 10_000, random = Math.random }: BackoffOptions = {}) {
    this.baseMs = baseMs;
    this.maxMs = maxMs;
    this.#random = random;
  }

  /** Tries so far since the last success. */
  get attempt(): number {
    return this.#attempt;
  }

  /** Milliseconds to wait before the next try. */
  next(retryAfterS?: number | null): number {
    const step = Math.min(this.maxMs, this.baseMs * 2 ** this.#attempt);
    this.#attempt += 1;
    const delay = step * (0.5 + this.#random() / 2);
    return Math.max(delay, (retryAfterS ?? 0) * 1000);
  }

  reset(): void {
    this.#attempt = 0;
  }
}
