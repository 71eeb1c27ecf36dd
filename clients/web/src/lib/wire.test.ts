import fc from "fast-check";
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

describe("any bytes", () => {
  it("decode to a frame whose parts are the message, or are refused as WireError", () => {
    const header = fc
      .record({ length: fc.nat(40), audio: fc.nat(20), video: fc.nat(20), surplus: fc.nat(1) })
      .map(({ length, audio, video, surplus }) => {
        const bytes = new Uint8Array(32 + audio + video + surplus);
        const view = new DataView(bytes.buffer);
        view.setUint16(2, length, true);
        view.setUint32(24, audio, true);
        view.setUint32(28, video, true);
        return bytes;
      });
    const bytes = fc.oneof(fc.uint8Array({ maxLength: 128 }), header);
    fc.assert(
      fc.property(bytes, (message) => {
        const { buffer } = new Uint8Array(message);
        try {
          const { audio, video } = decodeFrame(buffer);
          const headerLength = new DataView(buffer).getUint16(2, true);
          expect(headerLength + audio.length + video.length).toBe(buffer.byteLength);
        } catch (error) {
          expect(error).toBeInstanceOf(WireError);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("of a frame come back as they were", () => {
    const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    const part = fc.uint8Array({ maxLength: 64 }).map((bytes) => new Uint8Array(bytes));
    fc.assert(
      fc.property(
        fc.record({
          kind: fc.nat(255),
          flags: fc.nat(255),
          seq: u32,
          ptsUs: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
          epoch: u32,
          response: u32,
          audio: part,
          video: part,
        }),
        (frame) => {
          expect(decodeFrame(encodeFrame(frame))).toEqual(frame);
        },
      ),
    );
  });
});
