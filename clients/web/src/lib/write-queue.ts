/**
 * Writes one after the other, in their order, of which only so many may wait: an encoder that is
 * slower than real time must cost pictures, not memory. No codec, no clock but that of its owner.
 */

export interface WriteQueueOptions {
  /** Writes that may wait for an encoder before pictures are left out. */
  maxEncodings: number;
  /** Writes of any kind that may wait; more means that the encoder has stopped. */
  maxWaiting: number;
  /** `finish` gives up when no write came to its end for so long. */
  stallMs: number;
}

export const WRITE_QUEUE_DEFAULTS: WriteQueueOptions = {
  // A third of a second of pictures: enough for a hiccup, 8 MB of them at 512 pixels a side.
  maxEncodings: 8,
  maxWaiting: 500,
  stallMs: 20_000,
};

export class WriteQueue {
  readonly options: WriteQueueOptions;
  #tail: Promise<void> = Promise.resolve();
  #waiting = 0;
  #encodings = 0;
  #done = 0;
  #failure: Error | null = null;

  /** `failed` is called once, with the first thing that went wrong. */
  constructor(
    readonly failed: (error: Error) => void,
    options: Partial<WriteQueueOptions> = {},
  ) {
    this.options = { ...WRITE_QUEUE_DEFAULTS, ...options };
  }

  /** Whether something went wrong, after which nothing is written any more. */
  get broken(): boolean {
    return this.#failure !== null;
  }

  /** Whether the encoder keeps up, so that another picture may be encoded. */
  get keepsUp(): boolean {
    return this.#encodings < this.options.maxEncodings;
  }

  /** `encodes`: the write waits for an encoder, and counts for `keepsUp`. */
  add(write: () => Promise<void>, encodes: boolean): void {
    if (this.broken) return;
    if (this.#waiting >= this.options.maxWaiting) {
      this.#fail(new Error("the browser's encoder has stopped"));
      return;
    }
    this.#waiting += 1;
    if (encodes) this.#encodings += 1;
    this.#tail = this.#tail.then(async () => {
      try {
        if (!this.broken) await write();
      } catch (error) {
        this.#fail(error instanceof Error ? error : new Error(String(error)));
      } finally {
        this.#waiting -= 1;
        if (encodes) this.#encodings -= 1;
        this.#done += 1;
      }
    });
  }

  /**
   * Waits until all is written and then for `last`. Rejects with what went wrong, or when nothing
   * comes to its end any more.
   */
  async finish<Value>(last: () => Promise<Value>): Promise<Value> {
    const all = this.#tail.then(() => {
      if (this.#failure) throw this.#failure;
      return last();
    });
    let timer: ReturnType<typeof setInterval> | undefined;
    let done = -1;
    const stalled = new Promise<never>((_, reject) => {
      timer = setInterval(() => {
        if (this.#done === done) reject(new Error("the browser's encoder has stopped"));
        done = this.#done;
      }, this.options.stallMs);
    });
    try {
      return await Promise.race([all, stalled]);
    } finally {
      clearInterval(timer);
    }
  }

  #fail(error: Error): void {
    if (this.#failure) return;
    this.#failure = error;
    this.failed(error);
  }
}
