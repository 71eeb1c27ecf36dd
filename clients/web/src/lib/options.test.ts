import { describe, expect, it } from "vitest";
import { chooseFace, faceSettings } from "./face";
import { connectionOptions, mutableSettings, type SessionOptions } from "./options";

const FACE = { avatar_id: "clara" };

function settingsOf(options: Partial<SessionOptions>, changes = {}): object {
  const given = { url: "ws://test", ...options } as SessionOptions;
  const opening = {
    face: FACE,
    picture: "jpeg",
    sampleRate: 16_000,
    size: given,
    changes,
  } as const;
  return connectionOptions(given, opening).settings;
}

describe("connectionOptions", () => {
  it("leaves to the server what is not chosen", () => {
    expect(settingsOf({})).toEqual({
      avatar_id: "clara",
      input_audio: { format: "pcm16", rate: 16_000 },
      output: { video: "jpeg", audio: "pcm16" },
      idle: "generate",
      on_disconnect: "hold",
    });
  });

  it("asks for all that can be chosen", () => {
    const options: Partial<SessionOptions> = {
      quality: 70,
      fps: 12.5,
      width: 256,
      height: 256,
      seed: 0,
      prompt: "smiling",
      idle: "loop",
      onDisconnect: "end",
    };
    expect(settingsOf(options)).toMatchObject({
      output: { quality: 70, fps: 12.5, width: 256, height: 256 },
      seed: 0,
      prompt: "smiling",
      idle: "loop",
      on_disconnect: "end",
    });
  });

  it("opens the next session with what was changed in the last one", () => {
    const changes = { idle: "freeze", onDisconnect: "end" } as const;
    expect(settingsOf({ idle: "loop" }, changes)).toMatchObject({
      idle: "freeze",
      on_disconnect: "end",
    });
    expect(mutableSettings({ idle: "freeze" })).toEqual({ idle: "freeze" });
  });
});

describe("chooseFace", () => {
  it("is an avatar or a picture, and says when it is neither or both", async () => {
    expect(await faceSettings(chooseFace({ avatar: "clara" }))).toEqual({ avatar_id: "clara" });
    expect(await faceSettings(chooseFace({ image: "AAEC" }))).toEqual({ image: "AAEC" });
    for (const consent of [true, false]) {
      const said = { image: "AAEC", consent };
      expect(await faceSettings(chooseFace(said))).toEqual(said);
    }
    const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => i & 255);
    const { image } = await faceSettings(chooseFace({ image: new Blob([bytes]) }));
    expect(image).toBe(Buffer.from(bytes).toString("base64"));
    for (const wrong of [{}, { avatar: "clara", image: "AAEC" }]) {
      expect(() => chooseFace(wrong)).toThrow(
        expect.objectContaining({ code: "invalid_options", param: "avatar" }),
      );
    }
  });
});
