// Draw /openapi.json. Nothing is fetched from anywhere else.
const main = document.getElementById("main");

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function schemaText(content) {
  const schema = Object.values(content ?? {})[0]?.schema;
  return schema ? (schema.$ref?.split("/").pop() ?? schema.type ?? "") : "";
}

function operation(path, method, spec) {
  const card = element("section", "card");
  card.append(
    element("h2", "", element("code", "", element("span", "method", method), ` ${path}`)),
    element("p", "", spec.description ?? spec.summary ?? ""),
  );
  const list = element("ul", "");
  for (const item of spec.parameters ?? []) {
    list.append(element("li", "", element("code", "", item.name), ` (${item.in}) `, item.description ?? ""));
  }
  if (spec.requestBody) list.append(element("li", "", `body: ${schemaText(spec.requestBody.content)}`));
  for (const [status, answer] of Object.entries(spec.responses)) {
    list.append(element("li", "", `${status}: ${schemaText(answer.content) || answer.description}`));
  }
  card.append(list);
  return card;
}

const api = await (await fetch("/openapi.json")).json();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, spec] of Object.entries(methods)) main.append(operation(path, method, spec));
}
for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
  const pre = element("pre", "", JSON.stringify(schema, null, 2));
  main.append(element("section", "card", element("h2", "", name), pre));
}
