// What @huggingface/jinja makes of a chat template: each conversation as text, or null where it refuses.
import {answered, load} from "./told.mjs";

await answered(async ({template, conversations}) => {
    const {Template} = await load("@huggingface/jinja", "dist/index.js");
    const parsed = new Template(template);
    return {texts: conversations.map((variables) => {
        try {
            return {text: parsed.render(variables)};
        } catch (error) {
            return {refused: error.message};
        }
    })};
});
