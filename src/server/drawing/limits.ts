// What a server takes of one request. Tighter than what its engine could do, because everybody waits for everybody's
// pictures.

export const maxServedReferences = 8;
/**
 * Pixels of a request's references together, as they are stored: two of the largest that are taken, or eight of 16
 * megapixels. To decode so many takes one or two seconds, in which nobody else's picture is drawn.
 */
export const maxServedReferencePixels = 128 * 1024 * 1024;
export const maxServedSteps = 100;
/** A distilled model was taught few steps; more make the picture worse. */
export const maxDistilledSteps = 8;
/** Pixels of a side. */
export const minServedSide = 128;
export const maxServedSide = 2048;
export const maxServedImages = 10;
export const maxServedPartialImages = 3;
export const maxServedFrames = 241;
export const maxFramesPerSecond = 60;
/** UTF-16 units of a prompt: far more than 512 tokens of any language. Tokenising longer ones blocks everybody. */
export const maxServedPromptLength = 16_384;
/** Characters of a reference's URL: a longer one names no picture of this server and is not parsed. */
export const maxUrlLength = 8192;
