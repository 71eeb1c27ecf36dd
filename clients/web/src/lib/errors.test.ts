import { describe, expect, it } from "vitest";
import {
  AvatarError,
  CapacityError,
  ConnectionLostError,
  errorFromBody,
  errorFromClose,
  PermissionError,
  REMEDIES,
  TakenOverError,
} from "./errors";
import { CLOSE_CODES } from "./protocol";

describe("errors", () => {
  it("keep what the server said, with the class of the close code", () => {
    const error = errorFromBody(
      { type: "capacity_error", code: "capacity", message: "full", retry_after_s: 3 },
      4429,
    );
    expect(error).toBeInstanceOf(CapacityError);
    expect(error).toMatchObject({ code: "capacity", message: "full", retryAfterS: 3 });
  });

  it("take the class of the type when the socket stays open", () => {
    const body = { type: "permission_error", code: "not_permitted", message: "no" };
    expect(errorFromBody(body)).toBeInstanceOf(PermissionError);
  });

  it("of a later version still are errors with a remedy", () => {
    const error = errorFromBody({ type: "news", code: "news", message: "?" });
    expect(error).toBeInstanceOf(AvatarError);
    expect(error.remedy).not.toBe("");
  });

  it("follow from a bare close code", () => {
    expect(errorFromClose(1006)).toBeInstanceOf(ConnectionLostError);
    expect(errorFromClose(4409)).toBeInstanceOf(TakenOverError);
  });

  it.each(Object.keys(CLOSE_CODES).map(Number))("know close code %i", (code) => {
    expect(errorFromClose(code).closeCode).toBe(code);
  });

  it("have a remedy of one or two sentences each", () => {
    for (const remedy of Object.values(REMEDIES)) expect(remedy).toMatch(/^[A-Z].*\.$/);
  });
});
