import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Flag, Kind } from "./protocol";
import { Uplink } from "./uplink";
import { decodeFrame, type WireFrame } from "./wire";

function back(samples: number, flags = 0): WireFrame {
  return {
    kind: Kind.Media,
    flags,
    seq: 0,
    ptsUs: 0,
    epoch: 0,
    response: 1,
    audio: new Uint8Array(2 * samples),
    video: new Uint8Array(0),
  };
}

describe("Uplink", () => {
  it("cuts any audio into numbered messages without losing a sample", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 40_000 }), { maxLength: 6 }), (lengths) => {
        const uplink = new Uplink(16_000);
        let sent = 0;
        let seq = 0;
        for (const length of lengths) {
          for (const message of uplink.messages(new Int16Array(length))) {
            const frame = decodeFrame(message);
            expect(frame.seq).toBe(seq);
            expect(frame.ptsUs).toBe(Math.round((sent * 1e6) / 16_000));
            expect(frame.audio.length).toBeLessThanOrEqual(2 * 9_600);
            sent += frame.audio.length / 2;
            seq += 1;
          }
        }
        expect(sent).toBe(lengths.reduce((sum, length) => sum + length, 0));
        expect(uplink.backlogMs).toBe((sent * 1000) / 16_000);
      }),
    );
  });

  it("counts what is on its way, idle frames apart", () => {
    const uplink = new Uplink(16_000);
    expect([...uplink.messages(new Int16Array(1_600))]).toHaveLength(1);
    uplink.returned(back(640, Flag.Idle));
    expect(uplink.backlogMs).toBe(100);
    uplink.returned(back(640));
    expect(uplink.backlogMs).toBe(60);
    // The last frame was cut to a whole one: nothing more will come.
    uplink.returned(back(320, Flag.Last));
    expect(uplink.backlogMs).toBe(0);
  });

  it("forgets what a barge-in cut off, and numbers on", () => {
    const uplink = new Uplink(16_000);
    for (const _ of uplink.messages(new Int16Array(1_600)));
    uplink.cancelled();
    expect(uplink.backlogMs).toBe(0);
    const [next] = uplink.messages(new Int16Array(160));
    expect(next && decodeFrame(next).seq).toBe(1);
    uplink.restart();
    const [first] = uplink.messages(new Int16Array(160));
    expect(first && decodeFrame(first)).toMatchObject({ seq: 0, ptsUs: 0 });
  });
});
