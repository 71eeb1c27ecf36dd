import { describe, expect, it } from "vitest";
import { PlaybackMetrics, Window } from "./metrics";

describe("Window", () => {
  it("keeps the newest values", () => {
    const window = new Window(3);
    for (const value of [1, 2, 3, 4]) window.push(value);
    expect(window.values).toEqual([2, 3, 4]);
  });

  it("has nearest-rank percentiles, and none when empty", () => {
    const window = new Window(100);
    expect(window.percentile(0.95)).toBeNull();
    for (let i = 1; i <= 100; i++) window.push(i);
    expect(window.percentile(0.95)).toBe(95);
    expect(window.percentile(0)).toBe(1);
    expect(window.percentile(1)).toBe(100);
  });
});

describe("PlaybackMetrics", () => {
  it("counts the frames of the last second", () => {
    const metrics = new PlaybackMetrics();
    for (let i = 0; i < 50; i++) metrics.shown(i * 40, null);
    expect(metrics.fps(2_000)).toBe(24);
  });

  it("judges early and late frames alike", () => {
    const metrics = new PlaybackMetrics();
    for (const skew of [-30, 2, 2, 2]) metrics.shown(0, skew);
    expect(metrics.skewP95()).toBe(30);
  });
});
