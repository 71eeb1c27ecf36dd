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
    held.lost({ closeCode: 1006, wasLive: true }, 1_000);
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
    held.lost({ closeCode: 1006, wasLive: true }, 0);
    held.attempt(0);
    held.created({ handle: "other", ttl_s: 1 });
    held.resumed({ handle: "h2", ttl_s: 10 });
    held.lost({ closeCode: 1012, wasLive: true }, 100);
    expect(held.attempt(100)).toMatchObject({ handle: "h2" });
  });

  // The network, a replica that is full, one that still loads.
  it.each([1006, 4429, 4503])("gives a try that ends with %i another one in time", (code) => {
    const held = new Resumption();
    held.created(OFFER);
    held.lost({ closeCode: 1006, wasLive: true }, 0);
    held.attempt(0);
    expect(held.lost({ closeCode: code, wasLive: false }, 20_000)).toBe(false);
    expect(held.isPossibleAt(29_000)).toBe(true);
    expect(held.isPossibleAt(31_000)).toBe(false);
  });

  it.each([4403, 4404])("knows that %i refuses the resume and nothing else", (code) => {
    const held = new Resumption();
    held.created(OFFER);
    expect(held.lost({ closeCode: code, wasLive: true }, 0)).toBe(false);
    held.created(OFFER);
    held.lost({ closeCode: 1006, wasLive: true }, 0);
    held.attempt(0);
    expect(held.lost({ closeCode: code, wasLive: false }, 0)).toBe(true);
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
    held.lost({ closeCode: 1012, wasLive: true }, 0);
    expect(held.isPossibleAt(1)).toBe(possible);
  });

  it.each([
    [undefined, false],
    [false, false],
    [true, true],
  ])("after an engine restart with resumable %s", (resumable, possible) => {
    const held = new Resumption();
    held.created(OFFER);
    held.expiring({ ...draining(resumable), reason: "engine_restarting" });
    held.lost({ closeCode: 1012, wasLive: true, restartS: 120 }, 0);
    expect(held.isPossibleAt(149_999)).toBe(possible);
    expect(held.isPossibleAt(150_000)).toBe(false);
  });

  it("does not count the time in which the engine restarts", () => {
    const held = new Resumption();
    held.created(OFFER);
    held.lost({ closeCode: 1012, wasLive: true, restartS: 5 }, 0);
    // Every try that finds it still restarting begins the server's time anew.
    for (const nowMs of [5_000, 30_000, 60_000, 90_000]) {
      expect(held.attempt(nowMs)).not.toBeNull();
      held.lost({ closeCode: 1012, wasLive: false, restartS: 5 }, nowMs);
    }
    expect(held.isPossibleAt(124_999)).toBe(true);
    expect(held.isPossibleAt(125_000)).toBe(false);
  });

  it("does not believe in a restart of a session that is gone", () => {
    const held = new Resumption();
    held.created(OFFER);
    held.lost({ closeCode: 1006, wasLive: true }, 0);
    held.lost({ closeCode: 1012, wasLive: false, restartS: 5 }, 31_000);
    expect(held.isPossibleAt(31_001)).toBe(false);
  });

  it("gives a server that cannot be reached at all another try in time", () => {
    const held = new Resumption();
    held.created(OFFER);
    held.lost({ closeCode: 1006, wasLive: true }, 0);
    // No greeting, and so no attempt: the socket never opened.
    held.lost({ closeCode: 1006, wasLive: false }, 500);
    expect(held.attempt(29_000)).not.toBeNull();
  });

  it("takes up nothing that ends with its connection", () => {
    const held = new Resumption();
    held.created(OFFER);
    held.configured("end");
    held.lost({ closeCode: 1006, wasLive: true }, 0);
    expect(held.attempt(1)).toBeNull();
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
            held.lost({ closeCode: what.lost, wasLive: what.live }, nowMs);
            if (what.live) lostLiveAtMs = nowMs;
          }
          expect(held.isPossibleAt(lostLiveAtMs + 30_000)).toBe(false);
        }
      }),
    );
  });
});
