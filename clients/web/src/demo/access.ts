/** The access key of a server that wants one; kept for this tab only. */

const STORED = "visavis-access-key";
const WANTS_KEY = new Set(["missing_token", "invalid_token", "token_expired", "not_permitted"]);

export function accessKey(): string | undefined {
  return sessionStorage.getItem(STORED) ?? undefined;
}

export function setAccessKey(key: string): void {
  sessionStorage.setItem(STORED, key);
}

/** Whether another key would help. */
export function wantsKey(code: string): boolean {
  return WANTS_KEY.has(code);
}
