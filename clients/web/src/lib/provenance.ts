/** What a recording says of itself: that it is synthetic, what made it, when. As the server's do. */

/** IPTC's term for media that a trained model made, which C2PA uses, too. */
export const SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

export interface Provenance {
  /** Name and version of the program that made the pictures. */
  software: string;
  /** Null when the server did not say. */
  model: string | null;
  created: Date;
  /** Whether the person shown has agreed; null when nobody said. */
  consent: boolean | null;
}

/** Tags of a file; `comment` holds all of it as JSON. */
export interface ProvenanceTags {
  title: string;
  description: string;
  comment: string;
  date: Date;
}

export function provenanceTags({ software, model, created, consent }: Provenance): ProvenanceTags {
  const facts = {
    synthetic: true,
    digitalSourceType: SOURCE_TYPE,
    software,
    model,
    created: created.toISOString().replace(/\.\d+Z$/, "+00:00"),
    consent,
  };
  const known = Object.entries(facts).filter(([, value]) => value !== null);
  const by = model === null ? software : `${software} with the model ${model}`;
  return {
    title: "visavis recording",
    description: `Synthetic media: an AI-generated talking portrait, made by ${by}.`,
    comment: JSON.stringify(Object.fromEntries(known)),
    date: created,
  };
}
