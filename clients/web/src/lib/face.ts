/** Whom a session shows: an avatar of the server by its id, or a picture that is sent along. */
import { AvatarError } from "./errors";
import type { SessionSettings } from "./protocol";

/** A JPEG, PNG or WebP file, or one as base64. Small ones: the server's message limit holds. */
export type FaceImage = Blob | string;

/** `consent`: the person in the picture has agreed; servers may insist on it. */
export type Face = { avatar: string } | { image: FaceImage; consent?: boolean };

type FaceSettings = Pick<SessionSettings, "avatar_id" | "image" | "consent">;

/** Throws AvatarError `invalid_options` unless it is either of the two. */
export function chooseFace(given: {
  avatar?: string | undefined;
  image?: FaceImage | undefined;
  consent?: boolean | undefined;
}): Face {
  const { avatar, image, consent } = given;
  if (avatar !== undefined && image === undefined) return { avatar };
  if (image !== undefined && avatar === undefined) {
    return consent === undefined ? { image } : { image, consent };
  }
  const message =
    avatar === undefined
      ? "neither avatar nor image is given: name an avatar of the server, or bring a picture"
      : "both avatar and image are given: leave one of them out";
  throw new AvatarError({ code: "invalid_options", message, param: "avatar" });
}

/** The fields of `session.update` for it. Throws AvatarError `invalid_options`. */
export async function faceSettings(face: Face): Promise<FaceSettings> {
  if ("avatar" in face) return { avatar_id: face.avatar };
  const said = face.consent === undefined ? {} : { consent: face.consent };
  if (typeof face.image === "string") return { image: face.image, ...said };
  try {
    return { image: base64(new Uint8Array(await face.image.arrayBuffer())), ...said };
  } catch (error) {
    const message = `image cannot be read: ${error}`;
    throw new AvatarError({ code: "invalid_options", message, param: "image" });
  }
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
