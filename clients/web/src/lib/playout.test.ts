import fc from "fast-check";
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

describe("any network", () => {
  const arrivals = fc.array(
    fc.record({
      waitMs: fc.oneof(fc.nat(40), fc.nat(2_000)),
      idle: fc.boolean(),
      first: fc.boolean(),
      discontinuity: fc.boolean(),
    }),
    { maxLength: 120 },
  );

  it("never makes words overlap, and never plans them into the past", () => {
    fc.assert(
      fc.property(arrivals, (frames) => {
        const playout = new Playout();
        let nowS = 0;
        let speechEndS = Number.NEGATIVE_INFINITY;
        for (const [i, { waitMs, ...kind }] of frames.entries()) {
          nowS += waitMs / 1_000;
          const { dueS } = playout.place(frame(i, kind), nowS);
          expect(dueS).toBeGreaterThanOrEqual(nowS);
          if (kind.idle) continue;
          expect(dueS).toBeGreaterThanOrEqual(speechEndS - 1e-9);
          speechEndS = dueS + FRAME_S;
        }
      }),
    );
  });

  it("that is calm changes nothing: speech keeps its spacing exactly", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(100), { minLength: 2, maxLength: 80 }), (jitterMs) => {
        const playout = new Playout();
        let nowS = 0;
        let firstS: number | null = null;
        for (const [i, ms] of jitterMs.entries()) {
          // Frames of a calm network come at their pace, at most 100 ms late, and in order.
          nowS = Math.max(nowS, i * FRAME_S + ms / 1_000);
          const { dueS, underrun } = playout.place(frame(i, { first: i === 0 }), nowS);
          firstS ??= dueS;
          expect(underrun).toBe(false);
          expect(dueS).toBeCloseTo(firstS + i * FRAME_S);
        }
      }),
    );
  });
});

describe("squeeze of any queue", () => {
  it("keeps the order and the limit", () => {
    const times = fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { maxLength: 30 });
    fc.assert(
      fc.property(times, fc.double({ min: 0, max: 9, noNaN: true }), (dues, nowS) => {
        const sorted = [...dues].sort((a, b) => a - b);
        const moved = squeeze(sorted, nowS, nowS + 0.3);
        expect(moved).toEqual([...moved].sort((a, b) => a - b));
        for (const [i, due] of moved.entries()) {
          expect(due).toBeLessThanOrEqual(Math.max(sorted[i] as number, 0));
          if ((sorted[i] as number) > nowS) expect(due).toBeLessThan(nowS + 0.3);
        }
      }),
    );
  });
});
