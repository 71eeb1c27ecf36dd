import { describe, expect, it } from "vitest";
import { provenanceTags, SOURCE_TYPE } from "./provenance";

const CREATED = new Date("2026-03-04T05:06:07.890Z");

describe("provenanceTags", () => {
  it("says what server/provenance.py says", () => {
    const origin = { software: "visavis 0.1.0", model: "visavis-s", created: CREATED };
    expect(JSON.parse(provenanceTags({ ...origin, consent: true }).comment)).toEqual({
      synthetic: true,
      digitalSourceType: SOURCE_TYPE,
      software: "visavis 0.1.0",
      model: "visavis-s",
      created: "2026-03-04T05:06:07+00:00",
      consent: true,
    });
  });

  it("keeps silent about what nobody knows", () => {
    const tags = provenanceTags({
      software: "visavis",
      model: null,
      created: CREATED,
      consent: null,
    });
    expect(Object.keys(JSON.parse(tags.comment)).sort()).toEqual([
      "created",
      "digitalSourceType",
      "software",
      "synthetic",
    ]);
    expect(tags.description).not.toContain("null");
  });
});
