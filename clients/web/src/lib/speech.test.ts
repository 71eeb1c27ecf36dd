import { describe, expect, it } from "vitest";
import type { ShownFrame } from "./player";
import { Speech } from "./speech";

function frame(fields: Partial<ShownFrame>): ShownFrame {
  const known = { seq: 0, ptsUs: 0, response: 1, speech: true, first: false, last: false };
  return { ...known, skewMs: 0, ...fields };
}

describe("Speech", () => {
  it("tells once when the loudspeakers begin and end to play speech", () => {
    const speech = new Speech();
    const told: boolean[] = [];
    speech.on("speaking", (speaking) => told.push(speaking));
    for (const shown of [{ speech: false }, { first: true }, {}, { last: true }, {}]) {
      speech.turns.shown(frame(shown), 0);
      speech.update();
    }
    expect(told).toEqual([true, false, true]);
    speech.turns.silence();
    speech.update();
    expect(told.at(-1)).toBe(false);
  });
});
