import { describe, expect, it } from "vitest";
import { offeredSizes, wantedSize } from "./picture-size";

const OFFER = {
  video: ["h264"],
  fps: [25],
  width: 256,
  height: 256,
  min_width: 64,
  max_width: 512,
  min_height: 64,
  max_height: 512,
};

describe("offeredSizes", () => {
  it("begins with the model's own and ends with what the server allows", () => {
    expect(offeredSizes(OFFER).map(({ width }) => width)).toEqual([256, 384, 512]);
    expect(offeredSizes({ ...OFFER, max_width: 400, max_height: 400 })).toHaveLength(2);
  });

  it("keeps the model's shape and leaves out sides that are odd", () => {
    const tall = { ...OFFER, width: 450, height: 766, max_width: 900, max_height: 1532 };
    expect(offeredSizes(tall)).toEqual([
      { width: 450, height: 766 },
      { width: 900, height: 1532 },
    ]);
    expect(offeredSizes({ ...tall, max_width: 450, max_height: 766 })).toHaveLength(1);
  });
});

describe("wantedSize", () => {
  it("is a whole number of pixels or nothing", () => {
    expect(wantedSize(new URLSearchParams("size=384"))).toEqual({ width: 384 });
    for (const query of ["", "size=", "size=big", "size=-2", "size=1.5"]) {
      expect(wantedSize(new URLSearchParams(query))).toEqual({});
    }
  });
});
