/** Decoders for plain values, and functions that combine decoders. `protocol.gen.ts` is built of them. Pure. */

/** A function that returns a value with its checked type, or throws an `AnswerError`. */
export type Decoder<T> = (value: unknown) => T;

/** An answer that breaks the protocol. The path grows while the error passes outwards, so a good answer builds none. */
export class AnswerError extends Error {
  private path = "";

  constructor(
    private readonly expected: string,
    private readonly found: unknown,
  ) {
    super();
  }

  within(part: string): this {
    this.path = part + this.path;
    this.message = `The plugin's answer must hold ${this.expected} at ${this.path}; it holds ${describe(this.found)}. Reload the page: the plugin may have been updated.`;
    return this;
  }
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "number" || typeof value === "boolean") return String(value);
  return Array.isArray(value) ? "a list" : `a value of type ${typeof value}`;
}

export const string: Decoder<string> = (value) => {
  if (typeof value === "string") return value;
  throw new AnswerError("a text", value);
};

export const number: Decoder<number> = (value) => {
  if (typeof value === "number") return value;
  throw new AnswerError("a number", value);
};

export const boolean: Decoder<boolean> = (value) => {
  if (typeof value === "boolean") return value;
  throw new AnswerError("true or false", value);
};

export function nullable<T>(inner: Decoder<T>): Decoder<T | null> {
  return (value) => (value === null ? null : inner(value));
}

export function literal<T extends string>(...members: ReadonlyArray<T>): Decoder<T> {
  return (value) => {
    const found = members.find((member) => member === value);
    if (found !== undefined) return found;
    throw new AnswerError(`one of ${members.join(", ")}`, value);
  };
}

export function list<T>(item: Decoder<T>): Decoder<ReadonlyArray<T>> {
  return (value) => {
    if (!Array.isArray(value)) throw new AnswerError("a list", value);
    return value.map((element, index) => inside(`[${index}]`, () => item(element)));
  };
}

/** Decode the given fields and drop all others, which a newer plugin may have added. */
export function record<T>(fields: { readonly [K in keyof T]: Decoder<T[K]> }): Decoder<T> {
  const keys = Object.keys(fields) as Array<keyof T & string>;
  return (value) => {
    if (typeof value !== "object" || value === null) throw new AnswerError("a record", value);
    const given = value as Partial<Record<string, unknown>>;
    const decoded: Partial<T> = {};
    for (const key of keys) decoded[key] = inside(`.${key}`, () => fields[key](given[key]));
    return decoded as T;
  };
}

/** Decode a whole answer. The path in an error begins with the answer's name. */
export function answer<T>(name: string, decode: Decoder<T>): Decoder<T> {
  return (value) => inside(name, () => decode(value));
}

function inside<T>(part: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw error instanceof AnswerError ? error.within(part) : error;
  }
}
