import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ShownFrame } from "./player";
import { Turns } from "./turns";

function frame(response: number, kind: Partial<ShownFrame> = {}): ShownFrame {
  const speech = response !== 0;
  return { seq: 0, ptsUs: 0, response, speech, first: false, last: false, skewMs: 0, ...kind };
}

describe("Turns", () => {
  it("measure from the begin to the first frame", () => {
    const turns = new Turns();
    turns.begin(100);
    turns.end();
    expect(turns.shown(frame(0), 150).firstFrameMs).toBeNull();
    expect(turns.shown(frame(1, { first: true }), 400).firstFrameMs).toBe(300);
    expect(turns.shown(frame(1), 440).firstFrameMs).toBeNull();
  });

  it("are busy from the begin to the last frame", () => {
    const turns = new Turns();
    expect(turns.busy).toBe(false);
    turns.begin(0);
    turns.end();
    expect(turns.busy).toBe(true);
    turns.shown(frame(1), 1);
    expect(turns.speaking).toBe(true);
    expect(turns.shown(frame(1, { last: true }), 2).finished).toEqual([1]);
    expect(turns.busy).toBe(false);
  });

  it("end with the next frame when the last one was dropped", () => {
    const turns = new Turns();
    turns.shown(frame(1, { seq: 1 }), 0);
    turns.completed(1, 1);
    expect(turns.shown(frame(0, { seq: 2 }), 1).finished).toEqual([1]);
    turns.shown(frame(2, { seq: 3 }), 2);
    expect(turns.shown(frame(3, { seq: 4 }), 3).finished).toEqual([2]);
    turns.completed(2, 3);
    expect(turns.shown(frame(0, { seq: 5 }), 4).finished).toEqual([]);
  });

  it("last over a pause of their speaker", () => {
    const turns = new Turns();
    turns.begin(0);
    turns.shown(frame(1, { seq: 1 }), 0);
    expect(turns.shown(frame(0, { seq: 2 }), 1).finished).toEqual([]);
    expect([turns.speaking, turns.busy]).toEqual([false, true]);
    expect(turns.shown(frame(1, { seq: 3 }), 2).finished).toEqual([]);
    // All has come before the second pause is seen.
    turns.completed(1, 6);
    turns.end();
    expect(turns.shown(frame(0, { seq: 4 }), 3).finished).toEqual([]);
    expect(turns.shown(frame(1, { seq: 5 }), 4).finished).toEqual([]);
    expect(turns.shown(frame(1, { seq: 6, last: true }), 5).finished).toEqual([1]);
    expect(turns.shown(frame(0, { seq: 7 }), 6).finished).toEqual([]);
    expect(turns.busy).toBe(false);
  });

  it("end when not one of their frames was seen", () => {
    const turns = new Turns();
    turns.begin(0);
    turns.end();
    turns.completed(1, 3);
    expect(turns.shown(frame(0, { seq: 3 }), 1).finished).toEqual([]);
    expect(turns.busy).toBe(true);
    expect(turns.shown(frame(0, { seq: 4 }), 2).finished).toEqual([1]);
    expect(turns.busy).toBe(false);
  });

  it("forget what was cut off", () => {
    const turns = new Turns();
    turns.begin(0);
    turns.shown(frame(1), 1);
    turns.forget();
    turns.silence();
    expect(turns.busy).toBe(false);
    expect(turns.shown(frame(0), 2).finished).toEqual([]);
  });

  it("finish every response once, whatever is dropped and however the speaker pauses", () => {
    const kinds = fc.array(
      fc.record({
        length: fc.integer({ min: 1, max: 5 }),
        dropped: fc.nat(31),
        pauses: fc.nat(31),
      }),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(kinds, fc.boolean(), (responses, early) => {
        const turns = new Turns();
        const finished: number[] = [];
        let seq = 0;
        const show = (shown: ShownFrame) => finished.push(...turns.shown(shown, 0).finished);
        responses.forEach(({ length, dropped, pauses }, index) => {
          const response = index + 1;
          const through = seq + 2 * length;
          turns.begin(0);
          turns.end();
          if (early) turns.completed(response, through);
          for (let place = 0; place < length; place += 1) {
            const pausing = (pauses >> place) & 1;
            seq += 1;
            if (pausing) show(frame(0, { seq }));
            seq += 1;
            const last = place === length - 1;
            if (!((dropped >> place) & 1)) show(frame(response, { seq, last }));
          }
          if (!early) turns.completed(response, through);
          seq += 1;
          show(frame(0, { seq }));
          expect(finished).toEqual(Array.from({ length: response }, (_, number) => number + 1));
        });
        expect(turns.busy).toBe(false);
      }),
    );
  });
});
