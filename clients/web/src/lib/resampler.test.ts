import { describe, expect, it } from "vitest";
import { floatToPcm, levelDb } from "./pcm";
import { Resampler } from "./resampler";

function sine(hz: number, rate: number, length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => 0.5 * Math.sin((2 * Math.PI * hz * i) / rate));
}

function inPieces(rates: [number, number], input: Float32Array, size: number): number[] {
  const resampler = new Resampler(...rates);
  const output: number[] = [];
  for (let at = 0; at < input.length; at += size) {
    output.push(...resampler.process(input.subarray(at, at + size)));
  }
  return output;
}

describe.each([
  [48_000, 24_000],
  [44_100, 24_000],
  [16_000, 24_000],
] as [number, number][])("Resampler %i to %i Hz", (from, to) => {
  const input = sine(440, from, from / 2);
  const whole = inPieces([from, to], input, input.length);

  it.each([1, 128, 1_000])("gives the same samples in pieces of %i", (size) => {
    expect(inPieces([from, to], input, size)).toEqual(whole);
  });

  it("keeps pitch, level and length", () => {
    expect(Math.abs(whole.length - to / 2)).toBeLessThan(64);
    const crossings = whole.filter((x, i) => i > 0 && x >= 0 && (whole[i - 1] ?? 0) < 0).length;
    expect(crossings).toBeGreaterThanOrEqual(218);
    expect(crossings).toBeLessThanOrEqual(221);
    const middle = whole.slice(1_000, -1_000);
    expect(Math.max(...middle)).toBeCloseTo(0.5, 2);
  });
});

describe("Resampler", () => {
  it("removes what the lower rate cannot carry", () => {
    const output = inPieces([48_000, 24_000], sine(17_000, 48_000, 48_000), 128);
    const middle = output.slice(1_000, -1_000);
    expect(Math.max(...middle.map(Math.abs))).toBeLessThan(0.005);
  });

  it("refuses rates that are no whole positive numbers", () => {
    expect(() => new Resampler(0, 24_000)).toThrow("got 0, 24000");
    expect(() => new Resampler(44_100.5, 24_000)).toThrow("whole numbers");
  });
});

describe("pcm", () => {
  it("clips at full scale", () => {
    expect([...floatToPcm(Float32Array.of(2, -2, 0))]).toEqual([32_767, -32_768, 0]);
  });

  it("measures levels in decibels of full scale", () => {
    expect(levelDb(new Int16Array(100))).toBe(-100);
    expect(levelDb(new Int16Array(100).fill(16_384))).toBeCloseTo(-6.02, 1);
  });
});
