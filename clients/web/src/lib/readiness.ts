/** A promise that is kept once: by the first success, or broken by the first final failure. */
import type { AvatarError } from "./errors";

export class Readiness {
  readonly promise: Promise<void>;
  #resolve: () => void = () => {};
  #reject: (error: AvatarError) => void = () => {};

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever does not wait for it hears of a failure elsewhere.
    this.promise.catch(() => {});
  }

  succeed(): void {
    this.#resolve();
  }

  fail(error: AvatarError): void {
    this.#reject(error);
  }
}
