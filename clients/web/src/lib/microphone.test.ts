import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Microphone } from "./microphone";

type Port = { onmessage: (event: { data: Int16Array }) => void };

const ports: Port[] = [];

class FakeContext {
  readonly audioWorklet = { addModule: async () => {} };
  createMediaStreamSource = () => ({ connect: () => {} });
  resume = async () => {};
  close = async () => {};
}

class FakeWorkletNode {
  readonly port: Port = { onmessage: () => {} };

  constructor() {
    ports.push(this.port);
  }
}

describe("Microphone", () => {
  beforeEach(() => {
    const stream = { getTracks: () => [{ stop: () => {} }] };
    vi.stubGlobal("window", { isSecureContext: true });
    vi.stubGlobal("navigator", { mediaDevices: { getUserMedia: async () => stream } });
    vi.stubGlobal("AudioContext", FakeContext);
    vi.stubGlobal("AudioWorkletNode", FakeWorkletNode);
  });
  afterEach(() => {
    vi.unstubAllGlobals();
  });

  it("says nothing more from the moment in which it is closed", async () => {
    const heard: Int16Array[] = [];
    const microphone = new Microphone(16_000, (pcm) => heard.push(pcm));
    await microphone.start();
    const block = { data: new Int16Array(320) };
    ports[0]?.onmessage(block);
    expect(heard).toHaveLength(1);
    const stopped = microphone.stop();
    ports[0]?.onmessage(block);
    await stopped;
    ports[0]?.onmessage(block);
    expect(heard).toHaveLength(1);
  });
});
