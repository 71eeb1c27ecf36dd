import { describe, expect, it } from "vitest";
import vectors from "../../../../tests/protocol/vectors.json";
import { Flag, Kind } from "./protocol";
import { decodeFrame, encodeAudioIn, encodeFrame, pcmToBytes, pcmToFloat, WireError } from "./wire";

const FRAME = {
  kind: Kind.Media,
  flags: Flag.Keyframe | Flag.First,
  seq: 4_294_967_295,
  ptsUs: 3_600_000_000_123,
  epoch: 7,
  response: 3,
  audio: pcmToBytes(Int16Array.of(-32768, -1, 0, 1, 32767)),
  video: Uint8Array.of(0, 0, 0, 1, 0x67),
};

describe("frames", () => {
  it("survive encoding and decoding", () => {
    expect(decodeFrame(encodeFrame(FRAME))).toEqual(FRAME);
  });

  it("skip header bytes of a later version", () => {
    const plain = new Uint8Array(encodeFrame(FRAME));
    const longer = new Uint8Array(plain.length + 8);
    longer.set(plain.subarray(0, 32));
    longer.set(plain.subarray(32), 40);
    new DataView(longer.buffer).setUint16(2, 40, true);
    expect(decodeFrame(longer.buffer)).toEqual(FRAME);
  });

  it.each([0, 1, 31])("of %i bytes are refused as shorter than the header", (length) => {
    expect(() => decodeFrame(new ArrayBuffer(length))).toThrow("32-byte header");
  });

  it.each([-1, 1])("with %i bytes too many are refused with both lengths", (surplus) => {
    const bytes = encodeFrame(FRAME);
    const wrong = new ArrayBuffer(bytes.byteLength + surplus);
    new Uint8Array(wrong).set(new Uint8Array(bytes).subarray(0, wrong.byteLength));
    expect(() => decodeFrame(wrong)).toThrow(`announces ${bytes.byteLength}`);
  });

  it("with a header_len below 32 are refused", () => {
    const bytes = encodeFrame(FRAME);
    new DataView(bytes).setUint16(2, 16, true);
    expect(() => decodeFrame(bytes)).toThrow("header_len=16");
  });

  it("of audio carry the samples in little-endian order", () => {
    const decoded = decodeFrame(encodeAudioIn(5, 40_000, Int16Array.of(0x0102)));
    expect(decoded.kind).toBe(Kind.AudioIn);
    expect([...decoded.audio]).toEqual([0x02, 0x01]);
  });
});

describe("PCM16", () => {
  it("becomes floats in [-1, 1)", () => {
    const floats = pcmToFloat(pcmToBytes(Int16Array.of(-32768, 0, 16384)));
    expect([...floats]).toEqual([-1, 0, 0.5]);
  });

  it("of an odd number of bytes is refused", () => {
    expect(() => pcmToFloat(new Uint8Array(3))).toThrow("audio_len=3");
  });
});

function fromHex(hex: string): ArrayBuffer {
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++)
    bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes.buffer;
}

function toHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

describe("golden messages shared with the server", () => {
  it.each(vectors.frames)(
    "$name decodes, and encodes back",
    ({ message, header, audio, video }) => {
      const frame = decodeFrame(fromHex(message));
      expect(frame).toMatchObject({
        kind: header.kind,
        flags: header.flags,
        seq: header.seq,
        ptsUs: header.pts_us,
        epoch: header.epoch,
        response: header.response,
      });
      expect(toHex(frame.audio)).toBe(audio);
      expect(toHex(frame.video)).toBe(video);
      if (header.header_len === 32) expect(toHex(new Uint8Array(encodeFrame(frame)))).toBe(message);
    },
  );

  it.each(vectors.bad_frames)("$name is refused", ({ message }) => {
    expect(() => decodeFrame(fromHex(message))).toThrow(WireError);
  });
});
