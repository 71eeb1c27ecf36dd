import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ContinuousSound, FrameTimes } from "./recorder-timeline";

describe("FrameTimes", () => {
  it("begin at zero and only grow, whatever the session's clock does", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -1e3, max: 1e6, noNaN: true })), (dues) => {
        const times = new FrameTimes();
        const placed = dues.map((due) => times.place(due));
        if (placed.length > 0) expect(placed[0]).toBe(0);
        for (let i = 1; i < placed.length; i++) {
          expect(placed[i]).toBeGreaterThan(placed[i - 1] as number);
        }
      }),
    );
  });

  it("keep the pace of steady frames", () => {
    const times = new FrameTimes();
    expect([10, 10.04, 10.08].map((due) => times.place(due))[2]).toBeCloseTo(0.08);
  });
});

describe("ContinuousSound", () => {
  it("fills holes with silence", () => {
    const sound = new ContinuousSound(100);
    expect([...sound.append(0, Float32Array.of(1, 1))]).toEqual([1, 1]);
    expect([...sound.append(0.05, Float32Array.of(1))]).toEqual([0, 0, 0, 1]);
    expect([...sound.append(0.08, new Float32Array(0))]).toEqual([0, 0]);
  });

  it("cuts overlaps, and joins what nearly fits", () => {
    const sound = new ContinuousSound(1_000);
    sound.append(0, new Float32Array(40));
    expect(sound.append(0.02, new Float32Array(40))).toHaveLength(20);
    expect(sound.append(0.063, new Float32Array(40))).toHaveLength(40);
  });

  it("never falls behind a frame, and never runs more than a slice ahead", () => {
    const slices = fc.array(fc.record({ waitMs: fc.nat(200), samples: fc.nat(80) }));
    fc.assert(
      fc.property(slices, (list) => {
        const sound = new ContinuousSound(1_000);
        let atS = 0;
        for (const { waitMs, samples } of list) {
          atS += waitMs / 1_000;
          const before = sound.endS;
          sound.append(atS, new Float32Array(samples));
          expect(sound.endS).toBeGreaterThanOrEqual(atS - 0.0056);
          expect(sound.endS).toBeLessThanOrEqual(Math.max(before, atS) + samples / 1_000 + 0.0056);
        }
      }),
    );
  });
});
