import { describe, expect, it } from "vitest";
import { type MicrophoneMode, UtteranceDetector } from "./utterance";

const RATE = 24_000;
const BLOCK = RATE / 50;

function detect(mode: MicrophoneMode): { detector: UtteranceDetector; log: string[] } {
  const log: string[] = [];
  const detector = new UtteranceDetector(
    RATE,
    {
      begin: () => log.push("begin"),
      audio: () => log.push("audio"),
      end: () => log.push("end"),
    },
    mode,
  );
  return { detector, log };
}

function blocks(detector: UtteranceDetector, amplitude: number, count: number): void {
  for (let i = 0; i < count; i++) {
    detector.push(Int16Array.from({ length: BLOCK }, (_, j) => (j % 2 ? amplitude : -amplitude)));
  }
}

describe("UtteranceDetector", () => {
  it("sends nothing while nobody speaks", () => {
    const { detector, log } = detect("open");
    blocks(detector, 10, 200);
    expect(log).toEqual([]);
  });

  it("sends the moment before the gate opened, and ends by itself", () => {
    const { detector, log } = detect("open");
    blocks(detector, 10, 50);
    blocks(detector, 4_000, 10);
    blocks(detector, 10, 60);
    expect(log[0]).toBe("begin");
    expect(log.at(-1)).toBe("end");
    // 240 ms of pre-roll, 200 ms of speech, 700 ms of hang, in blocks of 20 ms; two of the
    // speech blocks before the opening are part of the pre-roll.
    expect(log.filter((entry) => entry === "audio")).toHaveLength(12 + 8 + 35);
  });

  it("sends exactly what is said between press and release", () => {
    const { detector, log } = detect("push");
    blocks(detector, 4_000, 20);
    detector.begin();
    blocks(detector, 4_000, 5);
    detector.end();
    blocks(detector, 4_000, 5);
    expect(log).toEqual(["begin", "audio", "audio", "audio", "audio", "audio", "end"]);
  });
});
