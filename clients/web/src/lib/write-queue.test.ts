import { describe, expect, it } from "vitest";
import { WriteQueue } from "./write-queue";

function stuck(): Promise<void> {
  return new Promise(() => {});
}

describe("WriteQueue", () => {
  it("writes in order, one at a time, and then the last", async () => {
    const written: string[] = [];
    const queue = new WriteQueue(() => {});
    for (const name of ["a", "b", "c"]) {
      queue.add(async () => {
        written.push(`${name}<`);
        await Promise.resolve();
        written.push(`>${name}`);
      }, true);
    }
    expect(await queue.finish(async () => written.join(" "))).toBe("a< >a b< >b c< >c");
  });

  it("says when pictures have to be left out, and when no more", async () => {
    const releases: (() => void)[] = [];
    const queue = new WriteQueue(() => {}, { maxEncodings: 2 });
    const slow = () => new Promise<void>((resolve) => releases.push(resolve));
    queue.add(slow, true);
    queue.add(async () => {}, false);
    expect(queue.keepsUp).toBe(true);
    queue.add(slow, true);
    expect(queue.keepsUp).toBe(false);
    const finished = queue.finish(async () => "file");
    while (!queue.keepsUp) {
      releases.shift()?.();
      await Promise.resolve();
    }
    releases.shift()?.();
    await new Promise((resolve) => setTimeout(resolve));
    releases.shift()?.();
    expect(await finished).toBe("file");
  });

  it("tells of the first failure at once, writes nothing after it, and rejects with it", async () => {
    const failures: string[] = [];
    const written: number[] = [];
    const queue = new WriteQueue((error) => failures.push(error.message));
    queue.add(() => Promise.reject(new Error("the encoder broke")), true);
    queue.add(async () => void written.push(1), false);
    await expect(queue.finish(async () => "file")).rejects.toThrow("the encoder broke");
    queue.add(async () => void written.push(2), false);
    expect(failures).toEqual(["the encoder broke"]);
    expect(written).toEqual([]);
    expect(queue.broken).toBe(true);
  });

  it("does not grow for ever behind an encoder that never answers", () => {
    const failures: string[] = [];
    const queue = new WriteQueue((error) => failures.push(error.message), { maxWaiting: 3 });
    for (let i = 0; i < 10; i++) queue.add(stuck, false);
    expect(failures).toEqual(["the browser's encoder has stopped"]);
  });

  it("gives up when the encoder never answers at the end", async () => {
    const queue = new WriteQueue(() => {}, { stallMs: 5 });
    queue.add(stuck, true);
    await expect(queue.finish(async () => "file")).rejects.toThrow("has stopped");
  });
});
