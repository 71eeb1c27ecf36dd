import { describe, expect, it } from "vitest";
import { Playout, squeeze, type TimedFrame } from "./playout";

const FRAME_S = 0.04;

function frame(index: number, kind: Partial<TimedFrame> = {}): TimedFrame {
  return {
    ptsS: index * FRAME_S,
    durationS: FRAME_S,
    idle: false,
    first: false,
    discontinuity: false,
    ...kind,
  };
}

describe("Playout", () => {
  it("holds the first frame for the jitter buffer and keeps the pace of the timeline", () => {
    const playout = new Playout({ jitterS: 0.2 });
    const first = playout.place(frame(0, { first: true }), 10);
    expect(first.dueS).toBeCloseTo(10.2);
    // A burst and a straggler: both keep their places on the timeline.
    for (let i = 1; i < 28; i++) {
      expect(playout.place(frame(i), 10.01).dueS).toBeCloseTo(10.2 + i * FRAME_S);
    }
    expect(playout.place(frame(28), 11.2).dueS).toBeCloseTo(10.2 + 28 * FRAME_S);
  });

  it("re-anchors after an underrun and buffers more", () => {
    const playout = new Playout({ jitterS: 0.2 });
    playout.place(frame(0, { first: true }), 0);
    const late = playout.place(frame(1), 5);
    expect(late.underrun).toBe(true);
    expect(late.dueS).toBeCloseTo(5 + playout.jitterS);
    expect(playout.jitterS).toBeGreaterThan(0.2);
    expect(playout.place(frame(2), 5).dueS).toBeCloseTo(late.dueS + FRAME_S);
  });

  it("never buffers more than its maximum, and forgets the fear again", () => {
    const playout = new Playout({ jitterS: 0.2, maxJitterS: 0.3 });
    playout.place(frame(0, { first: true }), 0);
    for (let i = 1; i < 10; i++) playout.place(frame(i), i * 10);
    expect(playout.jitterS).toBeLessThanOrEqual(0.3);
    for (let i = 10; i < 2_000; i++) playout.place(frame(i), 90 + i * FRAME_S);
    expect(playout.jitterS).toBeCloseTo(0.2);
  });

  it("does not call late idle frames an underrun", () => {
    const playout = new Playout();
    playout.place(frame(0, { idle: true }), 0);
    expect(playout.place(frame(1, { idle: true }), 3).underrun).toBe(false);
  });

  it("pulls the first word ahead of waiting idle frames", () => {
    const playout = new Playout({ jitterS: 0.1 });
    for (let i = 0; i < 8; i++) playout.place(frame(i, { idle: true }), 0);
    const speech = playout.place(frame(8, { first: true }), 0.05);
    expect(speech.dueS).toBeCloseTo(0.15);
    expect(speech.squeezeBeforeS).toBeCloseTo(0.15);
  });

  it("never pulls a word over the end of the word before", () => {
    const playout = new Playout({ jitterS: 0.1 });
    for (let i = 0; i < 10; i++) playout.place(frame(i, { first: i === 0 }), 0);
    const next = playout.place(frame(20, { first: true }), 0.01);
    expect(next.dueS).toBeCloseTo(0.1 + 10 * FRAME_S);
  });

  it("works off a long idle queue", () => {
    const playout = new Playout({ jitterS: 0.1, maxIdleLeadS: 0.3 });
    let dueS = 0;
    for (let i = 0; i < 100; i++) dueS = playout.place(frame(i, { idle: true }), i * 0.03).dueS;
    expect(dueS - 99 * 0.03).toBeLessThan(0.34);
  });

  it("anchors anew at a discontinuity", () => {
    const playout = new Playout({ jitterS: 0.1 });
    playout.place(frame(0, { idle: true }), 0);
    const resumed = playout.place(frame(5_000, { discontinuity: true }), 1);
    expect(resumed.dueS).toBeCloseTo(1.1);
  });
});

describe("squeeze", () => {
  it("moves waiting times before the limit, in order, and leaves past ones", () => {
    const moved = squeeze([0.9, 1.04, 1.08, 1.2], 1, 1.1);
    expect(moved[0]).toBe(0.9);
    expect(moved).toEqual([...moved].sort((a, b) => a - b));
    expect(moved.at(-1)).toBeLessThan(1.1);
  });

  it("never delays", () => {
    expect(squeeze([1.01, 1.02], 1, 9)).toEqual([1.01, 1.02]);
  });
});
