/** Text messages of the server, checked as far as this client leans on them. */
import type { ServerEvent } from "./protocol";
import { WireError } from "./wire";

/** What each event must bring; types that are not here, and fields beyond, are ignored. */
const REQUIRED: Readonly<Record<string, readonly (readonly string[])[]>> = {
  error: [["error", "code"]],
  "output.cleared": [["epoch"]],
  "session.created": [["session_id"]],
  "session.resumed": [["session", "output"]],
  "session.updated": [["session", "output"]],
};

/** Throws WireError for anything but a JSON object with a `type` and what that type must bring. */
export function parseEvent(text: string): ServerEvent {
  let event: unknown;
  try {
    event = JSON.parse(text);
  } catch {
    throw new WireError(`a text message is no JSON: ${text.slice(0, 60)}`);
  }
  const type = field(event, "type");
  if (typeof type !== "string") throw new WireError("a text message has no type");
  const paths = Object.hasOwn(REQUIRED, type) ? REQUIRED[type] : undefined;
  for (const path of paths ?? []) {
    const found = path.reduce<unknown>(field, event);
    if (found === undefined || found === null) {
      throw new WireError(`${type} has no ${path.join(".")}`);
    }
  }
  return event as ServerEvent;
}

function field(from: unknown, name: string): unknown {
  if (typeof from !== "object" || from === null || !Object.hasOwn(from, name)) return undefined;
  return (from as Record<string, unknown>)[name];
}
