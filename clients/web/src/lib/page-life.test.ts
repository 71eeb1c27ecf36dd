import { describe, expect, it, vi } from "vitest";
import { PageLife } from "./page-life";

function transition(kind: "pagehide" | "pageshow", persisted: boolean): Event {
  return Object.assign(new Event(kind), { persisted });
}

describe("PageLife", () => {
  it("tells a page that is left for good from one that comes back", () => {
    const page = new EventTarget();
    const handlers = { gone: vi.fn(), restored: vi.fn() };
    const life = new PageLife(handlers, page as Window);
    page.dispatchEvent(transition("pageshow", false));
    page.dispatchEvent(transition("pagehide", true));
    expect(handlers.gone).not.toHaveBeenCalled();
    expect(handlers.restored).not.toHaveBeenCalled();
    page.dispatchEvent(transition("pageshow", true));
    expect(handlers.restored).toHaveBeenCalledOnce();
    page.dispatchEvent(transition("pagehide", false));
    expect(handlers.gone).toHaveBeenCalledOnce();
    life.close();
    page.dispatchEvent(transition("pagehide", false));
    expect(handlers.gone).toHaveBeenCalledOnce();
  });
});
