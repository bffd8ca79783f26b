// Checks of answers against two documents: the official one of Open Responses, and the server's own /openapi.json.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";

type Document = { components: { schemas: Record<string, unknown> } };

const officialPath = fileURLToPath(new URL("./openresponses-openapi.json", import.meta.url));
const official = JSON.parse(readFileSync(officialPath, "utf8")) as Document;
const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema({ $id: "openresponses", ...official });

const eventSchemas = new Map(
  Object.keys(official.components.schemas)
    .filter((name) => name.endsWith("StreamingEvent"))
    .map((name) => {
      const { properties } = official.components.schemas[name] as { properties: { type: { enum: [string] } } };
      return [properties.type.enum[0], name];
    }),
);

const compiled = new Map<string, ValidateFunction>();

/** What is wrong with a value by a schema of the official document; empty: nothing. */
export function officialErrors(schema: string, value: unknown): string[] {
  const validate = compiled.get(schema) ?? ajv.compile({ $ref: `openresponses#/components/schemas/${schema}` });
  compiled.set(schema, validate);
  return errorsOf(validate, value);
}

/** The same for an event, by its type. */
export function officialEventErrors(event: { type: string }): string[] {
  const schema = eventSchemas.get(event.type);
  return schema === undefined ? [`the event type ${event.type} is not in the document`] : officialErrors(schema, event);
}

type Paths = Record<string, Record<string, { responses: { 200: Content; default: Content } }>>;
type Content = { content: Record<string, { schema?: object }> };

/** The server's own document. */
export class OwnDocument {
  readonly paths: Paths;
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true });

  constructor(document: { paths: Paths }) {
    this.paths = document.paths;
  }

  /** What is wrong with an answer of a route, such as `/v1/responses/{id}`. */
  errors(path: string, method: string, status: number, type: string, value: unknown): string[] {
    const operation = this.paths[path]?.[method.toLowerCase()];
    if (!operation) return [`${method} ${path} is not in the document`];
    const content = status < 400 ? operation.responses[200].content : operation.responses.default.content;
    const described = content[type];
    if (!described) return [`${method} ${path} does not describe ${type}`];
    return described.schema ? errorsOf(this.#ajv.compile(described.schema), value) : [];
  }
}

function errorsOf(validate: ValidateFunction, value: unknown): string[] {
  if (validate(value)) return [];
  return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
}
