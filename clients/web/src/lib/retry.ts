/** When a socket closes: is it worth another try, and how soon. */

export type CloseVerdict = "done" | "retry" | "fatal" | "expired";

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

/** Close codes that the protocol leaves open (1001, 1006, 1011, 1012, 4429, 4503...) are retried. */
export function verdictOf(closeCode: number): CloseVerdict {
  return VERDICTS[closeCode] ?? "retry";
}

/** Exponential backoff with full jitter above half the step, so that clients do not march in step. */
export class Backoff {
  #attempt = 0;

  constructor(
    readonly baseMs = 500,
    readonly maxMs = 10_000,
    readonly random: () => number = Math.random,
  ) {}

  get attempt(): number {
    return this.#attempt;
  }

  /** Milliseconds to wait before the next try. */
  next(retryAfterS?: number | null): number {
    const step = Math.min(this.maxMs, this.baseMs * 2 ** this.#attempt);
    this.#attempt += 1;
    const delay = step * (0.5 + this.random() / 2);
    return Math.max(delay, (retryAfterS ?? 0) * 1000);
  }

  reset(): void {
    this.#attempt = 0;
  }
}
