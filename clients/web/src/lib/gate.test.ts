import { describe, expect, it } from "vitest";
import { EnergyGate, type GateDecision } from "./gate";

const BLOCK_MS = 20;

function feed(gate: EnergyGate, levelDb: number, ms: number, extraDb = 0): GateDecision[] {
  return Array.from({ length: ms / BLOCK_MS }, () => gate.push(levelDb, BLOCK_MS, extraDb));
}

describe("EnergyGate", () => {
  it("stays closed in a quiet room", () => {
    expect(new Set(feed(new EnergyGate(), -62, 5_000))).toEqual(new Set(["closed"]));
  });

  it("opens after the attack time and ends after the hang time, once each", () => {
    const gate = new EnergyGate();
    feed(gate, -62, 1_000);
    const speech = feed(gate, -25, 600);
    const silence = feed(gate, -62, 1_000);
    expect(speech.indexOf("opened")).toBe(60 / BLOCK_MS - 1);
    expect(silence.indexOf("ended")).toBe(700 / BLOCK_MS - 1);
    expect([...speech, ...silence].filter((d) => d === "opened" || d === "ended")).toHaveLength(2);
  });

  it("bridges pauses shorter than the hang time", () => {
    const gate = new EnergyGate();
    feed(gate, -62, 500);
    const decisions = [...feed(gate, -25, 400), ...feed(gate, -62, 600), ...feed(gate, -25, 200)];
    expect(decisions).not.toContain("ended");
  });

  it("ignores a click shorter than the attack time", () => {
    const gate = new EnergyGate();
    feed(gate, -62, 500);
    expect([...feed(gate, -20, 40), ...feed(gate, -62, 200)]).not.toContain("opened");
  });

  it("learns a loud room and still hears speech above it", () => {
    const gate = new EnergyGate({ maximumMs: 2_000 });
    feed(gate, -40, 12_000);
    expect(gate.isOpen).toBe(false);
    expect(feed(gate, -40, 1_000)).not.toContain("opened");
    expect(feed(gate, -22, 200)).toContain("opened");
  });

  it("cuts an utterance at its maximum", () => {
    const gate = new EnergyGate({ maximumMs: 1_000 });
    feed(gate, -62, 500);
    expect(feed(gate, -25, 1_200)).toContain("ended");
  });

  it("needs more while the loudspeakers play", () => {
    const gate = new EnergyGate();
    feed(gate, -60, 500);
    expect(feed(gate, -45, 200, 9)).not.toContain("opened");
    expect(feed(gate, -45, 200)).toContain("opened");
  });
});
