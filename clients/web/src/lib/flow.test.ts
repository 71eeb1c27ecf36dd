import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputRate } from "./flow";

/** The server's own meter, as server/input_rate.py has it. */
class Meter {
  #levelS = 0;
  #thenMs = 0;

  constructor(
    readonly rate: number,
    readonly burstS: number,
  ) {}

  accepts(audioS: number, nowMs: number): boolean {
    this.#levelS = Math.max(0, this.#levelS - ((nowMs - this.#thenMs) / 1000) * this.rate);
    this.#thenMs = nowMs;
    const costS = Math.max(audioS, 0.0025);
    if (this.#levelS + costS > this.burstS) return false;
    this.#levelS += costS;
    return true;
  }
}

describe("InputRate", () => {
  it("never sends what the server would refuse, and gets everything through", () => {
    const pieces = fc.array(
      fc.record({ audioS: fc.double({ min: 0.001, max: 0.4, noNaN: true }) }),
      {
        maxLength: 300,
      },
    );
    fc.assert(
      fc.property(pieces, fc.integer({ min: 2, max: 40 }), (list, rate) => {
        const own = new InputRate(rate, 2);
        const server = new Meter(rate, 3);
        let nowMs = 0;
        for (const { audioS } of list) {
          for (let waitMs = own.take(audioS, nowMs); waitMs > 0; waitMs = own.take(audioS, nowMs)) {
            nowMs += waitMs;
          }
          expect(server.accepts(audioS, nowMs)).toBe(true);
        }
        const totalS = list.reduce((sum, { audioS }) => sum + Math.max(audioS, 0.0025), 0);
        expect(nowMs).toBeLessThanOrEqual((totalS / (0.9 * rate)) * 1000 + 2 * list.length);
      }),
    );
  });

  it("lets a message larger than its bucket through when the bucket is empty", () => {
    const rate = new InputRate(2, 0.1);
    expect(rate.take(1, 0)).toBe(0);
    const waitMs = rate.take(1, 0);
    expect(waitMs).toBeGreaterThan(0);
    expect(rate.take(1, waitMs)).toBe(0);
  });
});
