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
    turns.shown(frame(1), 0);
    expect(turns.shown(frame(0), 1).finished).toEqual([1]);
    turns.shown(frame(2), 2);
    expect(turns.shown(frame(3), 3).finished).toEqual([2]);
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

  it("finish every response at most once, whatever is shown", () => {
    const frames = fc.array(
      fc.record({ step: fc.nat(2), idle: fc.boolean(), last: fc.boolean() }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(frames, (steps) => {
        const turns = new Turns();
        const finished: number[] = [];
        let response = 1;
        let ended = false;
        for (const { step, idle, last } of steps) {
          // A response has no frame after its last.
          if (step > 0 || ended) response += Math.max(1, step);
          ended = !idle && last;
          finished.push(...turns.shown(idle ? frame(0) : frame(response, { last }), 0).finished);
          if (idle) response += 1;
        }
        expect(new Set(finished).size).toBe(finished.length);
      }),
    );
  });
});
