import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { DecodedImage } from "./decoder";
import { FrameQueue } from "./frame-queue";
import { Flag, Kind } from "./protocol";
import type { WireFrame } from "./wire";

const FRAME_S = 0.04;

function wire(fields: Partial<WireFrame> & { picture?: boolean } = {}): WireFrame {
  const { picture = true, ...rest } = fields;
  return {
    kind: Kind.Media,
    flags: 0,
    seq: 0,
    ptsUs: 0,
    epoch: 0,
    response: 1,
    audio: new Uint8Array(0),
    video: new Uint8Array(picture ? 1 : 0),
    ...rest,
  };
}

/** Pictures that count how many of them are open. */
class Pictures {
  open = 0;

  make(): DecodedImage {
    this.open += 1;
    return {
      close: () => {
        this.open -= 1;
      },
    } as DecodedImage;
  }
}

/** A queue of `count` frames from time 0 on, the first `decoded` of them decoded. */
function filled(count: number, decoded = count, pictures = new Pictures()): FrameQueue {
  const queue = new FrameQueue();
  for (let i = 0; i < count; i++) queue.add(wire({ seq: i }), i * FRAME_S);
  let left = decoded;
  while (left > 0) {
    const batch = queue.takeUndecoded(Number.NEGATIVE_INFINITY).slice(0, left);
    for (const { id } of batch) queue.decoded(id, pictures.make());
    left -= batch.length;
  }
  return queue;
}

describe("FrameQueue", () => {
  it("shows a frame when its sound is heard, or a moment before", () => {
    const queue = filled(2);
    expect(queue.takeDue(-0.02).shown).toBeNull();
    expect(queue.takeDue(-0.005).shown?.wire.seq).toBe(0);
    expect(queue.takeDue(0.02).shown).toBeNull();
    expect(queue.takeDue(0.04).shown?.wire.seq).toBe(1);
    expect(queue.length).toBe(0);
  });

  it("leaves out what is too late when the next is due as well", () => {
    const pictures = new Pictures();
    const queue = filled(4, 4, pictures);
    const { shown, passed, dropped } = queue.takeDue(3 * FRAME_S);
    expect(shown?.wire.seq).toBe(2);
    expect(passed.map((frame) => frame.wire.seq)).toEqual([0, 1]);
    expect(dropped).toBe(2);
    // The one that is shown is the taker's to close, the one that waits is still needed.
    expect(pictures.open).toBe(2);
  });

  it("shows idle frames late rather than not at all", () => {
    const queue = new FrameQueue();
    for (let i = 0; i < 2; i++) queue.add(wire({ seq: i, flags: Flag.Idle }), i * FRAME_S);
    for (const { id } of queue.takeUndecoded(0)) queue.decoded(id, new Pictures().make());
    expect(queue.takeDue(0.2).shown?.wire.seq).toBe(0);
  });

  it("waits for a picture that is being decoded, and passes sound without one", () => {
    const queue = new FrameQueue();
    queue.add(wire({ seq: 0, picture: false }), 0);
    queue.add(wire({ seq: 1 }), FRAME_S);
    const { shown, passed, dropped } = queue.takeDue(1);
    expect([shown, dropped]).toEqual([null, 0]);
    expect(passed.map((frame) => frame.wire.seq)).toEqual([0]);
    expect(queue.length).toBe(1);
  });

  it("decodes six frames ahead and no more", () => {
    const queue = filled(20, 2);
    expect(queue.takeUndecoded(1).length + 2 + 1).toBeLessThanOrEqual(6);
    const fresh = new FrameQueue();
    for (let i = 0; i < 20; i++) fresh.add(wire({ seq: i }), i * FRAME_S);
    expect(fresh.takeUndecoded(0).map((frame) => frame.wire.seq)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(fresh.takeUndecoded(6)).toEqual([]);
  });

  it("holds a stopped epoch back until it is released", () => {
    const queue = filled(3);
    queue.add(wire({ seq: 3, epoch: 1 }), 3 * FRAME_S);
    queue.hold(0, FRAME_S);
    expect(queue.takeDue(0).shown?.wire.seq).toBe(0);
    expect(queue.takeDue(FRAME_S).shown?.wire.seq).toBe(1);
    expect(queue.takeDue(2 * FRAME_S).shown).toBeNull();
    queue.release();
    expect(queue.takeDue(2 * FRAME_S).shown?.wire.seq).toBe(2);
  });

  it("jumps to the latest keyframe that is due when it is far behind", () => {
    const queue = new FrameQueue();
    for (let i = 0; i < 20; i++) {
      queue.add(wire({ seq: i, flags: i % 5 === 0 ? Flag.Keyframe : 0 }), i * FRAME_S);
    }
    expect(queue.skipLate(0.2)).toBe(0);
    expect(queue.skipLate(12 * FRAME_S)).toBe(10);
    expect(queue.takeUndecoded(0)[0]?.wire.seq).toBe(10);
  });

  it("does not keep a picture that nobody waits for", () => {
    const queue = filled(1, 0);
    const [frame] = queue.takeUndecoded(0);
    expect(queue.remove(() => true)).toBe(1);
    expect(frame && queue.decoded(frame.id, new Pictures().make())).toBe(false);
  });

  it("counts every picture once and leaks none, whatever happens", () => {
    const step = fc.oneof(
      fc.record({ add: fc.boolean(), key: fc.boolean() }),
      fc.record({ heard: fc.integer({ min: 0, max: 30 }) }),
      fc.constantFrom("decode" as const, "remove" as const, "hold" as const, "release" as const),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const queue = new FrameQueue();
        const pictures = new Pictures();
        const decoding: number[] = [];
        let added = 0;
        let gone = 0;
        let heardS = 0;
        for (const what of steps) {
          if (what === "decode") {
            for (const { id } of queue.takeUndecoded(decoding.length)) decoding.push(id);
            const id = decoding.shift();
            const image = pictures.make();
            if (id === undefined || !queue.decoded(id, image)) image.close();
          } else if (what === "remove") gone += queue.remove((frame) => frame.id % 3 === 0);
          else if (what === "hold") queue.hold(0, heardS);
          else if (what === "release") queue.release();
          else if ("add" in what) {
            const flags = what.key ? Flag.Keyframe : 0;
            queue.add(wire({ picture: what.add, flags }), added * FRAME_S);
            added += what.add ? 1 : 0;
          } else {
            heardS += what.heard / 100;
            gone += queue.skipLate(heardS);
            const { shown, passed, dropped } = queue.takeDue(heardS);
            expect(passed.length).toBeGreaterThanOrEqual(dropped);
            shown?.image?.close();
            gone += dropped + (shown ? 1 : 0);
          }
        }
        gone += queue.remove(() => true);
        expect(gone).toBe(added);
        expect(pictures.open).toBe(0);
      }),
    );
  });
});
