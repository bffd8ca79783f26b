// The server's own OpenAPI document, generated from the table of routes and the schemas that requests are validated
// with. Knows no route by name.

import { z } from "zod";
import type { ServerOptions } from "./context.js";
import { json } from "./http/answers.js";
import { errorBody } from "./http/api-error.js";
import type { Route } from "./http/routes.js";

/** `GET /openapi.json` for these routes and itself. */
export function openApiRoute(routes: readonly Route[], options: ServerOptions): Route {
  let answer: ReturnType<typeof json> | undefined;
  const route: Route = {
    method: "GET",
    path: "/openapi.json",
    access: "key",
    summary: "This document",
    handle: () => {
      answer ??= json(describeRoutes([...routes, route], options));
      return answer;
    },
    answer: { "application/json": z.record(z.string(), z.unknown()) },
  };
  return route;
}

function describeRoutes(routes: readonly Route[], { version, keys }: ServerOptions) {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const methods = paths[route.path] ?? {};
    methods[route.method.toLowerCase()] = describeRoute(route, keys !== undefined);
    paths[route.path] = methods;
  }
  return {
    openapi: "3.1.0",
    info: { title: "Daybreak", version, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
    paths,
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
  };
}

function describeRoute(route: Route, hasKeys: boolean) {
  const { summary, body, answer, access } = route;
  const parameters = describeParameters(route);
  return {
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(body && {
      requestBody: {
        required: true,
        content: Object.fromEntries(
          Object.entries(body).map(([type, schema]) => [
            type,
            { schema: typeof schema === "string" ? bodySchemas[schema] : jsonSchema(schema) },
          ]),
        ),
      },
    }),
    ...(hasKeys && access !== "open" && { security: [{ key: [] }] }),
    responses: {
      200: {
        description: "as asked",
        content: Object.fromEntries(
          Object.entries(answer).map(([type, schema]) => [
            type,
            schema === "file" ? {} : { schema: jsonSchema(schema) },
          ]),
        ),
      },
      default: { description: "an error", content: { "application/json": { schema: jsonSchema(errorBody) } } },
    },
  };
}

function describeParameters({ path, isIdempotent }: Route) {
  const schema = { type: "string" };
  return [
    ...(path.includes("{id}") ? [{ name: "id", in: "path", required: true, schema }] : []),
    ...(isIdempotent ? [{ name: "Idempotency-Key", in: "header", required: false, schema }] : []),
  ];
}

const file = { type: "string", format: "binary" };
const bodySchemas = {
  file,
  form: { type: "object", properties: { image: { type: "array", items: file } } },
  "file form": { type: "object", properties: { file }, required: ["file"] },
};

/** JSON Schema 2020-12, which OpenAPI 3.1 speaks. */
function jsonSchema(schema: z.ZodType): unknown {
  const { $schema: _, ...described } = z.toJSONSchema(schema, {
    // After what is read leniently (JPG as jpeg, "2" as 2) the strict form is the one to document.
    io: "output",
    unrepresentable: "any",
    override({ zodSchema, jsonSchema: node }) {
      // Members that are not named are ignored, not forbidden, except where the schema is strict.
      const { def } = zodSchema._zod as { def: { type: string; catchall?: { _zod: { def: { type: string } } } } };
      if (def.type === "object" && def.catchall?._zod.def.type !== "never") delete node.additionalProperties;
    },
  });
  return described;
}
