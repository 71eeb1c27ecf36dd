import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Backoff, mayResumeAfter, verdictOf } from "./retry";

describe("verdictOf", () => {
  it.each([1001, 1005, 1006, 1011, 1012, 4429, 4503])("retries after %i", (code) => {
    expect(verdictOf(code)).toBe("retry");
  });

  it.each([1003, 1009, 4400, 4401, 4403, 4404, 4409])("gives up after %i", (code) => {
    expect(verdictOf(code)).toBe("fatal");
  });

  it("knows an end from a failure", () => {
    expect(verdictOf(1000)).toBe("done");
    expect(verdictOf(4408)).toBe("expired");
  });
});

describe("mayResumeAfter", () => {
  it("knows the codes after which a server holds a session", () => {
    const codes = Array.from({ length: 5_000 }, (_, code) => code);
    expect(codes.filter(mayResumeAfter)).toEqual([1001, 1005, 1006, 1012]);
  });
});

describe("Backoff", () => {
  it("doubles up to its maximum and starts over after reset", () => {
    const backoff = new Backoff({ baseMs: 500, maxMs: 4_000, random: () => 1 });
    expect([1, 2, 3, 4, 5].map(() => backoff.next())).toEqual([500, 1_000, 2_000, 4_000, 4_000]);
    backoff.reset();
    expect(backoff.next()).toBe(500);
  });

  it("jitters within half a step and respects the server's wish", () => {
    expect(new Backoff({ baseMs: 500, maxMs: 4_000, random: () => 0 }).next()).toBe(250);
    expect(new Backoff({ baseMs: 500, maxMs: 4_000, random: () => 0 }).next(5)).toBe(5_000);
  });

  it("waits between half a step and a whole one, whatever the dice say", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
        (dice) => {
          let thrown = 0;
          const backoff = new Backoff({
            baseMs: 500,
            maxMs: 8_000,
            random: () => dice[thrown++] as number,
          });
          for (let attempt = 0; attempt < dice.length; attempt++) {
            const step = Math.min(8_000, 500 * 2 ** attempt);
            const delay = backoff.next();
            expect(delay).toBeGreaterThanOrEqual(step / 2);
            expect(delay).toBeLessThanOrEqual(step);
          }
        },
      ),
    );
  });
});
