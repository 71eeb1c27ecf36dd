import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { SessionExpiring } from "./protocol";
import { Resumption } from "./resumption";

const OFFER = { handle: "h1", ttl_s: 30 };

function draining(resumable?: boolean): SessionExpiring {
  return {
    type: "session.expiring",
    event_id: "e",
    reason: "server_draining",
    deadline_s: 5,
    ...(resumable === undefined ? {} : { resumable }),
  };
}

describe("Resumption", () => {
  it("offers what was seen and heard last, until the server lets go", () => {
    const held = new Resumption();
    held.created(OFFER);
    held.seen(7);
    held.heard("e9");
    held.heard(undefined);
    expect(held.attempt(0)).toBeNull();
    held.lost(1006, true, 1_000);
    expect(held.isPossibleAt(30_999)).toBe(true);
    expect(held.isPossibleAt(31_000)).toBe(false);
    expect(held.attempt(30_999)).toMatchObject({
      handle: "h1",
      last_seq: 7,
      last_event_id: "e9",
    });
  });

  it("keeps the session's own offer while another socket greets", () => {
    const held = new Resumption();
    held.created(OFFER);
    held.lost(1006, true, 0);
    held.attempt(0);
    held.created({ handle: "other", ttl_s: 1 });
    held.resumed({ handle: "h2", ttl_s: 10 });
    held.lost(1012, true, 100);
    expect(held.attempt(100)).toMatchObject({ handle: "h2" });
  });

  // The network, a replica that is full, one that still loads.
  it.each([1006, 4429, 4503])("gives a try that ends with %i another one in time", (code) => {
    const held = new Resumption();
    held.created(OFFER);
    held.lost(1006, true, 0);
    held.attempt(0);
    expect(held.lost(code, false, 20_000)).toBe(false);
    expect(held.isPossibleAt(29_000)).toBe(true);
    expect(held.isPossibleAt(31_000)).toBe(false);
  });

  it.each([4403, 4404])("knows that %i refuses the resume and nothing else", (code) => {
    const held = new Resumption();
    held.created(OFFER);
    expect(held.lost(code, true, 0)).toBe(false);
    held.created(OFFER);
    held.lost(1006, true, 0);
    held.attempt(0);
    expect(held.lost(code, false, 0)).toBe(true);
    expect(held.isPossibleAt(1)).toBe(false);
  });

  it.each([
    [undefined, false],
    [false, false],
    [true, true],
  ])("after a drain with resumable %s", (resumable, possible) => {
    const held = new Resumption();
    held.created(OFFER);
    held.expiring(draining(resumable));
    held.lost(1012, true, 0);
    expect(held.isPossibleAt(1)).toBe(possible);
  });

  it("never resumes later than the server holds, whatever happens", () => {
    const step = fc.oneof(
      fc.record({ lost: fc.constantFrom(1000, 1006, 1012, 4403, 4404, 4408), live: fc.boolean() }),
      fc.constant("attempt" as const),
      fc.constant("forget" as const),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.integer({ min: 0, max: 20_000 }))), (steps) => {
        const held = new Resumption();
        held.created(OFFER);
        let nowMs = 0;
        let lostLiveAtMs = 0;
        for (const [what, passedMs] of steps) {
          nowMs += passedMs;
          if (what === "forget") held.forget();
          else if (what === "attempt") held.attempt(nowMs);
          else {
            held.lost(what.lost, what.live, nowMs);
            if (what.live) lostLiveAtMs = nowMs;
          }
          expect(held.isPossibleAt(lostLiveAtMs + 30_000)).toBe(false);
        }
      }),
    );
  });
});
